"""The packed forms that Python and the Lua scripts share.

Redis' cmsgpack knows the old msgpack spec only: no bin type, so bytes and text are the same to it.
We pack for it without bin (`pack`), and read back either raw bytes (`unpack_raw`, where ids
occur) or text (`unpack_text`).
"""

from collections.abc import Mapping
from typing import Any, Final

import msgpack
import msgspec

from server.protocol.messages import ChatLine, ClaimState, ClaimStatus
from server.store.types import OrderEntry, Settled, Take

_packer: Final = msgpack.Packer(use_bin_type=False, autoreset=True)
_encode: Final = msgspec.msgpack.Encoder().encode  # for ints, short strings and Structs: as `pack`
_CHAT_LINE: Final = msgspec.msgpack.Decoder(ChatLine)
_TAKE_TYPES: Final = [int, int, int, bytes, bytes, int, int, int, int]  # of Take's fields, packed
_STATE_FROM: Final = Settled._fields.index("status")
_REFUSED: Final = b"refused"
_STATUSES: Final[dict[bytes, ClaimStatus]] = {
    b"held": "held",
    b"confirmed": "confirmed",
    b"paid": "paid",
    b"fulfilled": "fulfilled",
    b"expired": "expired",
    b"cancelled": "cancelled",
    b"refunded": "refunded",
    b"released_by_incident": "released_by_incident",
}


def pack(value: Any) -> bytes:
    """msgpack that cmsgpack can read."""
    packed: bytes = _packer.pack(value)
    return packed


def unpack_raw(packed: bytes) -> Any:
    """What cmsgpack packed, strings as bytes. Raises ValueError when it is no msgpack."""
    return msgpack.unpackb(packed, raw=True)


def unpack_text(packed: bytes) -> Any:
    """What cmsgpack packed, strings as text. Raises ValueError, also for bytes that are no text."""
    return msgpack.unpackb(packed, raw=False)


def unpack_chat_line(packed: bytes) -> ChatLine:
    return _CHAT_LINE.decode(packed)


def claim_id_text(claim_id: bytes) -> str:
    """Canonical text of a UUID's 16 bytes (RFC 9562 section 4)."""
    h = claim_id.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


# --- A claim's state: [status, pool, quantity, price, price_version, epoch, seq, order_id,
# --- pay_by_ms, at_ms] in the claims hash; or a refusal: [b"refused", attempt, code] -----------


def unpack_claim_state(claim_id: bytes, packed: bytes) -> ClaimState | None:
    """The state as a client sees it, None for a refusal. Raises ValueError or KeyError when it is
    neither."""
    row = unpack_raw(packed)
    if row[0] == _REFUSED:
        return None
    status, pool, quantity, price, price_version, epoch, seq, order_id, pay_by, _ = row
    return ClaimState(
        claim_id=claim_id_text(claim_id),
        status=_STATUSES[status],
        sale=pool,
        quantity=quantity,
        price=price,
        price_version=price_version,
        epoch=epoch,
        seq=seq,
        order_id=order_id,
        pay_by=pay_by,
    )


def pack_settled_state(claim: Settled) -> bytes:
    return _encode(claim[_STATE_FROM:])  # its fields from `status` on are the state's, in order


def pack_settled_fact(claim: Settled) -> bytes:
    """One [user, state] pair of an OrderFact."""
    fields: Any = claim[_STATE_FROM:-1]  # all but the last (`at_ms`) are ClaimState's, in order
    return _encode((claim.buyer, ClaimState(claim_id_text(claim.claim_id), *fields)))


# --- Entries of the order stream ---------------------------------------------------------------


def unpack_order_entry(entry_id: bytes, fields: Mapping[bytes, bytes]) -> OrderEntry:
    """An entry as claim_batch.lua or take.lua wrote it; one that cannot be read has a fault."""
    try:
        takes = [take_of(row) for row in unpack_raw(fields[b"t"])]
        return OrderEntry(entry_id.decode(), int(fields[b"e"]), fields[b"h"].decode(), takes)
    except (ValueError, KeyError, TypeError) as error:
        fault = f"{type(error).__name__}: {error}"
        return OrderEntry(entry_id.decode(), 0, "", [], fault, dict(fields))


def take_of(row: list[Any]) -> Take:
    """A take from its unpacked fields, strings as bytes. Raises ValueError."""
    if [*map(type, row)] != _TAKE_TYPES:
        raise ValueError("a take with too many or too few fields, or one of the wrong type")
    kind, pool, seq, buyer, claim_id, quantity, price, price_version, at_ms = row
    return Take(kind, pool, seq, buyer.decode(), claim_id, quantity, price, price_version, at_ms)
