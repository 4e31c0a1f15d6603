"""What the coordinator and a loader process tell each other, over the loader's stdin and stdout.

A frame is a big-endian uint32 length and that many bytes of msgpack: one tagged Struct. Every
`t_us` is in µs on the machine's monotonic clock since the run's zero; 0 says never.
"""

import asyncio
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from loadtest.scenario import Crowd

FRAME_BYTES_MAX: Final = 1 << 30  # a harvest of many traces; more is a broken stream

T = TypeVar("T")

# --- To the loader -------------------------------------------------------------------------------


class CrowdSlice(Struct):
    """This loader's people of one crowd, numbered from `first` within the crowd.

    One entry each in `tokens` ("": anonymous), `join_us` and `room` (index of Setup.urls).
    `act_us` are the intended instants of all of them together, sorted; they act in turn.
    """

    crowd: Crowd
    first: int
    count: int
    tokens: list[str]
    join_us: list[int]
    act_us: list[int]
    room: list[int]


class Setup(Struct, tag=True):
    """The first frame: whom to be, where to go. `zero_us`: monotonic instant that is t_us 0."""

    run: str
    loader: int
    loaders: int
    seed: int
    zero_us: int
    crowds: list[CrowdSlice]
    urls: list[str]  # one per room
    show: str
    sale: int
    price_version: int
    bus_redis_url: str  # "": no witness of what is published
    source_net: str = "127.0.0"  # viewers on loopback come from .1, .2, ... of it


class Go(Struct, tag=True):
    """The sale opens at `t0_us`; what begins within `part_us` (start, end) is measured."""

    t0_us: int
    part_us: tuple[int, int]


class NewSale(Struct, tag=True):
    """Claims go to this sale from `t0_us` on."""

    sale: int
    t0_us: int
    price_version: int


class Drop(Struct, tag=True):
    """Cut a share of the open sockets within so many ms."""

    share: float
    within_ms: float
    jitter: bool
    seed: int


class Finish(Struct, tag=True):
    """No new acts: ask for the order status of every claim still open, then send the Harvest."""

    settle_until_us: int


ToLoader = Setup | Go | NewSale | Drop | Finish

# --- From the loader -----------------------------------------------------------------------------


class Health(Struct):
    """How the loader itself fared during one second. `waited_share`: ready, but without a core."""

    cpu_share: float
    loop_lag_p99_us: int
    loop_lag_max_us: int
    schedule_lag_p99_us: int
    dropped: int  # acts more than 1 s late because the person was away or busy
    gc_us: int
    waited_share: float
    acts: int = 0  # intended in it


class Joined(Struct, tag=True):
    """All have come, or were refused."""

    open: int
    refused: int


class Pulse(Struct, tag=True):
    """Once a second. `counts`: growth since the last pulse. `quick`: measure -> (p50, p99) in ms
    of this second."""

    t_us: int
    counts: dict[str, int]
    health: Health
    quick: dict[str, tuple[float, float]]


class ClaimLog(Struct):
    """Every claim of this loader, by column, `n` entries each, in the order of intention.

    array('q') as bytes: `crowd`, `sale`, `quantity`, `intended_us`, `sent_us` (first attempt),
    `held_us`, `confirmed_us`, `ended_us` (finally refused), `attempts`, `code` (last refusal),
    `order_id`, `epoch`, `seq`, `room`. `claim_id`: 16 bytes each. `user`: text joined by NUL.
    `cuts`: (row, lost_us, back_us) of each loss of a connection while a claim was open.
    """

    n: int
    columns: dict[str, bytes]


class Trace(Struct):
    """Everything one sampled viewer was shown of one sale's stock, in order: array('q') as bytes,
    `t_us` of the arrival and the (`epoch`, `version`) it brought."""

    viewer: str
    room: int
    sale: int
    t_us: bytes
    epoch: bytes
    version: bytes


class Offence(Struct):
    """A viewer was told what must never be told.

    `kind`: counter_back (an older level, or another at the same version), stock_rose (units back
    without a restock in a sale that is not paid later), stock_sum (left, held and sold are not the
    total), gap (a host event is missing), two_answers, order_changed, foreign_claim (an order that
    this user never asked for), unreadable (bytes that are no message). Of what many were shown
    alike the first viewer stands here.
    """

    kind: str
    t_us: int
    viewer: str
    room: int
    was: str
    now: str


class Shown(Struct):
    """What so many viewers still had on the screen of a sale's stock when the loader ended."""

    room: int
    sale: int
    epoch: int
    version: int
    left: int
    viewers: int


class Harvest(Struct, tag=True):
    """All a loader has learned, once, at the end.

    `histograms`: "name@room" -> encoded histogram of the measured part. `blocks`: the same for
    each tenth of it. `awareness`: sale -> array('q') as bytes, for each viewer the t_us when it
    first saw the sale sold out.
    """

    histograms: dict[str, bytes]
    blocks: dict[str, list[bytes]]
    claims: ClaimLog
    awareness: dict[int, bytes]
    traces: list[Trace]
    offences: list[Offence]
    health: list[Health]
    counts: dict[str, int]
    shown: list[Shown] = []


class Failed(Struct, tag=True):
    """The loader gives up."""

    reason: str


FromLoader = Joined | Pulse | Harvest | Failed

TO_LOADER: Final = msgspec.msgpack.Decoder(ToLoader)
FROM_LOADER: Final = msgspec.msgpack.Decoder(FromLoader)


def frame(message: ToLoader | FromLoader) -> bytes:
    """The message as it goes through the pipe."""
    payload = msgspec.msgpack.encode(message)
    return len(payload).to_bytes(4, "big") + payload


async def receive(reader: asyncio.StreamReader, decoder: msgspec.msgpack.Decoder[T]) -> T | None:
    """The next message; None when the other end has closed between two frames.

    Raises EOFError inside a frame, ValueError when it is too large or not a message.
    """
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size > FRAME_BYTES_MAX:
            raise ValueError(f"a frame of {size} bytes")
        return decoder.decode(await reader.readexactly(size))
    except asyncio.IncompleteReadError as error:
        if error.expected == 4 and not error.partial:
            return None
        raise
