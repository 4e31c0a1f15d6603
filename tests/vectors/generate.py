"""Append vectors for messages that have none yet; see README.md in this folder.

The bytes are written by the msgpack package and the standard library's json, not by our codec, so
that the tests compare two implementations.
"""

import json
from pathlib import Path
from typing import Any

import msgpack
import msgspec

from server import limits
from server.errors import ERRORS
from server.protocol import messages as m
from server.protocol.examples import (
    COMMAND_EXAMPLES,
    EVENT_EXAMPLES,
    SERVER_EXAMPLES,
    STATE_EXAMPLES,
)

FILE = Path(__file__).with_name("messages.json")
LONGEST_CLAIM_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"


def edge_commands() -> list[msgspec.Struct]:
    """Commands at the ends of their ranges, and with all optional fields absent."""
    return [
        m.Hello(token="x" * limits.TOKEN_CHARS_MAX),
        m.Chat(text="😀 e\u0301 中文 \u202e"),
        m.Like(),
        m.Like(taps=limits.LIKE_TAPS_MAX, ref=0),
        m.Claim(
            ref=limits.REF_MAX,
            sale=2**53 - 1,
            claim_id=LONGEST_CLAIM_ID,
            quantity=limits.CLAIM_QUANTITY_MAX,
            price_version=limits.REF_MAX,
            attempt=limits.ATTEMPT_MAX,
        ),
        m.Time(ref=0),
    ]


def edge_server_messages() -> list[msgspec.Struct]:
    """All events and state keys, and messages with everything optional absent."""
    row = ERRORS["malformed"]
    return [
        m.Tick(n=2**32, now=2**53 - 1),
        m.Tick(n=1, now=2, state=dict(STATE_EXAMPLES), epoch=3, events=list(EVENT_EXAMPLES)),
        m.RefusedReply(
            ref=None,
            code=row.code,
            name=row.name,
            retryable=False,
            retry_ms=0,
            zh=row.zh,
            en=row.en,
        ),
        # What came after the ticks above were written down, for a vector never changes.
        m.Tick(n=2, now=3, epoch=3, events=[m.LineRemoved(seq=22, at=3, line="k3x9-17")]),
    ]


def sources() -> list[tuple[str, msgspec.Struct]]:
    ours = [("client", one) for one in (*COMMAND_EXAMPLES, *edge_commands())]
    theirs = [("server", one) for one in (*SERVER_EXAMPLES, *edge_server_messages())]
    return ours + theirs


def vector(name: str, side: str, message: msgspec.Struct) -> dict[str, Any]:
    value = msgspec.to_builtins(message)
    return {
        "name": name,
        "from": side,
        "value": value,
        "msgpack": msgpack.packb(value).hex(),
        "json": json.dumps(value, ensure_ascii=False, separators=(",", ":")),
    }


def main() -> None:
    known = json.loads(FILE.read_text())["vectors"] if FILE.exists() else []
    names = {one["name"] for one in known}
    counts: dict[str, int] = {}
    for side, message in sources():
        tag = str(type(message).__struct_config__.tag)
        counts[tag] = counts.get(tag, 0) + 1
        name = tag if counts[tag] == 1 else f"{tag}_{counts[tag]}"
        if name not in names:
            known.append(vector(name, side, message))
    FILE.write_text(json.dumps({"vectors": known}, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
