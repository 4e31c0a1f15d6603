"""What crosses Redis between hubs: finished facts, published by the scripts that made them true.

Arrays on the wire of the bus, first element the tag, so that Lua's cmsgpack can write them
(`cmsgpack.pack({"s", key, value, edge})`). Two traps of cmsgpack: it knows only the old msgpack
spec (decode strings with raw=False, pack for it with use_bin_type=False), and an empty Lua table
packs as an empty array, never as a map.
"""

from typing import Any, Final

import msgspec
from msgspec import Struct

from server.protocol.messages import ChatLine, ClaimState


class StateFact(Struct, array_like=True, tag="s", frozen=True):
    """State key `key` is now `value` (a map with epoch and version). `edge`: flush at once."""

    key: str
    value: dict[str, Any]
    edge: bool = False


class EventFact(Struct, array_like=True, tag="e", frozen=True):
    """Event number `event["seq"]` of `epoch` happened (a map as in messages.Event)."""

    epoch: int
    event: dict[str, Any]


class ChatFact(Struct, array_like=True, tag="c", frozen=True):
    """Danmaku lines one hub accepted during one tick; `folded` more were left out."""

    lines: list[ChatLine]
    folded: int = 0


class HeartbeatFact(Struct, array_like=True, tag="h", frozen=True):
    """Number `n` of hub `hub`, through the channel itself: silence means a deaf connection."""

    hub: str
    n: int


class KickFact(Struct, array_like=True, tag="k", frozen=True):
    """Close every connection of `user` in this show with close code `code`."""

    user: str
    code: int


class PolicyFact(Struct, array_like=True, tag="p", frozen=True):
    """The chat policy (mutes, bans, words, slow mode) changed: read it again."""

    version: int


class OrderFact(Struct, array_like=True, tag="o", frozen=True):
    """Claims of buyers that moved on, as [user, state] pairs; on one hub's own channel."""

    orders: list[tuple[str, ClaimState]]


class RebuildFact(Struct, array_like=True, tag="r", frozen=True):
    """The show's stock is being rebuilt: present to `rebuild` what you know of claims."""

    rebuild: str


class Resync(Struct, frozen=True):
    """Never published: the bus hands it out where facts may have been missed, so that the room
    reads a snapshot. `reason` is for the log."""

    reason: str


Fact = (
    StateFact
    | EventFact
    | ChatFact
    | HeartbeatFact
    | KickFact
    | PolicyFact
    | OrderFact
    | RebuildFact
)

_DECODER: Final = msgspec.msgpack.Decoder(Fact)


def decode_fact(payload: bytes) -> Fact:
    """One published fact. Raises msgspec.DecodeError on anything else."""
    fact: Fact = _DECODER.decode(payload)
    return fact
