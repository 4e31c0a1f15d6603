"""A video for HLS that needs no encoder: H.264 pictures of raw samples (I_PCM) in fragmented MP4.

Sections named below are of ITU-T H.264 (bit streams) and ISO/IEC 14496-12 and -15 (boxes).
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from struct import pack

from aiohttp import web

WIDTH_MB, HEIGHT_MB = 4, 7  # macroblocks of 16 x 16 samples
FRAMES, FRAME_MS = 5, 200  # of one segment
SEGMENTS = 8  # of 1 s each
TIMESCALE = 1000


# --- H.264 -------------------------------------------------------------------------------------


def ue(value: int) -> str:
    """Exp-Golomb code (9.1)."""
    binary = f"{value + 1:b}"
    return "0" * (len(binary) - 1) + binary


def nal(header: int, bits: str) -> bytes:
    """A NAL unit of whole bytes, with emulation prevention (7.4.1)."""
    bits += "0" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return bytes([header]) + re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", body)


def sequence_parameters() -> bytes:
    """7.3.2.1.1: constrained baseline, level 1, no picture depends on another."""
    size = ue(WIDTH_MB - 1) + ue(HEIGHT_MB - 1)
    return nal(0x67, f"{66:08b}{0xC0:08b}{10:08b}{ue(0)}{ue(0)}{ue(2)}{ue(1)}0{size}11001")


def picture_parameters() -> bytes:
    """7.3.2.2: one slice group, CAVLC."""
    return nal(0x68, f"{ue(0)}{ue(0)}00{ue(0)}{ue(0)}{ue(0)}000{ue(0)}{ue(0)}{ue(0)}0001")


def picture(number: int) -> bytes:
    """One IDR picture (7.3.3) of one grey that changes with `number`."""
    bits = f"{ue(0)}{ue(7)}{ue(0)}0000{ue(number % 2)}00{ue(0)}"
    samples = f"{60 + number * 7 % 150:08b}" * 256 + f"{128:08b}" * 128
    for _ in range(WIDTH_MB * HEIGHT_MB):
        bits += ue(25)  # I_PCM
        bits += "0" * (-len(bits) % 8) + samples
    return nal(0x65, bits + "1")


# --- MP4 ---------------------------------------------------------------------------------------


def box(kind: str, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return pack(">I4s", 8 + len(body), kind.encode()) + body


def full(kind: str, flags: int, *parts: bytes) -> bytes:
    return box(kind, pack(">I", flags), *parts)


_MATRIX = pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_WIDTH, _HEIGHT = 16 * WIDTH_MB, 16 * HEIGHT_MB


def sample_entry() -> bytes:
    """`avc1` with its `avcC` (14496-15, 5.3.3)."""
    sps, pps = sequence_parameters(), picture_parameters()
    lists = b"\xe1" + pack(">H", len(sps)) + sps + b"\x01" + pack(">H", len(pps)) + pps
    config = box("avcC", b"\x01" + sps[1:4] + b"\xff" + lists)
    size = pack(">HHIIIH32sHh", _WIDTH, _HEIGHT, 0x480000, 0x480000, 0, 1, b"", 24, -1)
    return box("avc1", pack(">6xH16x", 1), size, config)


def initialization() -> bytes:
    """`ftyp` and a `moov` without samples."""
    tables = [full(name, 0, pack(">I", 0)) for name in ("stts", "stsc", "stco")]
    stbl = box("stbl", full("stsd", 0, pack(">I", 1), sample_entry()), *tables,
               full("stsz", 0, pack(">II", 0, 0)))  # fmt: skip
    here = full("dref", 0, pack(">I", 1), full("url ", 1))
    minf = box("minf", full("vmhd", 1, bytes(8)), box("dinf", here), stbl)
    mdia = box("mdia", full("mdhd", 0, pack(">IIIIHH", 0, 0, TIMESCALE, 0, 0x55C4, 0)),
               full("hdlr", 0, pack(">I4s12xx", 0, b"vide")), minf)  # fmt: skip
    tkhd = full("tkhd", 3, pack(">IIIII8xHHHH", 0, 0, 1, 0, 0, 0, 0, 0, 0), _MATRIX,
                pack(">II", _WIDTH << 16, _HEIGHT << 16))  # fmt: skip
    mvhd = full("mvhd", 0, pack(">IIIIIH10x", 0, 0, TIMESCALE, 0, 0x10000, 0x100), _MATRIX,
                bytes(24), pack(">I", 2))  # fmt: skip
    mvex = box("mvex", full("trex", 0, pack(">IIIII", 1, 1, FRAME_MS, 0, 0)))
    kind = box("ftyp", b"isom", pack(">I", 512), b"isomiso5avc1")
    return kind + box("moov", mvhd, box("trak", tkhd, mdia), mvex)


def segment(number: int) -> bytes:
    """Second `number` of the video: `moof` and `mdat`."""
    pictures = [picture(number * FRAMES + i) for i in range(FRAMES)]
    samples = [pack(">I", len(each)) + each for each in pictures]
    sizes = b"".join(pack(">I", len(each)) for each in samples)

    def moof(offset: int) -> bytes:
        begin = full("tfdt", 0x01000000, pack(">Q", number * FRAMES * FRAME_MS))
        run = full("trun", 0x000201, pack(">Ii", FRAMES, offset), sizes)
        traf = box("traf", full("tfhd", 0x020000, pack(">I", 1)), begin, run)
        return box("moof", full("mfhd", 0, pack(">I", number + 1)), traf)

    return moof(len(moof(0)) + 8) + box("mdat", *samples)


def playlist() -> str:
    seconds = "".join(f"#EXTINF:1.0,\n{n}.m4s\n" for n in range(SEGMENTS))
    head = '#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:1\n#EXT-X-MAP:URI="init.mp4"\n'
    return f"{head}{seconds}#EXT-X-ENDLIST\n"


# --- A host for it -----------------------------------------------------------------------------


async def _file(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    everyone = {"access-control-allow-origin": "*"}
    if name == "live.m3u8":
        kind = "application/vnd.apple.mpegurl"
        return web.Response(text=playlist(), content_type=kind, headers=everyone)
    if name == "init.mp4":
        return web.Response(body=initialization(), headers=everyone)
    if name.endswith(".m4s"):
        return web.Response(body=segment(int(name.removesuffix(".m4s"))), headers=everyone)
    return web.Response(status=404, headers=everyone)


@asynccontextmanager
async def video_host() -> AsyncIterator[str]:
    """An HTTP server of another origin that has `live.m3u8`. Yields its base URL."""
    app = web.Application()
    app.router.add_get("/{name}", _file)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
