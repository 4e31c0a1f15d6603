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
_CHAT_LINE: Final = msgspec.msgpack.Decoder(ChatLine)
_TAKE_FIELDS: Final = len(Take._fields)
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
# --- pay_by_ms, at_ms] in the claims hash ------------------------------------------------------


def unpack_claim_state(claim_id: bytes, packed: bytes) -> ClaimState:
    """The state as a client sees it. Raises ValueError or KeyError when it is none."""
    row = unpack_raw(packed)
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
    return pack(
        (
            claim.status,
            claim.pool,
            claim.quantity,
            claim.price,
            claim.price_version,
            claim.epoch,
            claim.seq,
            claim.order_id,
            claim.pay_by_ms,
            claim.at_ms,
        )
    )


def pack_settled_fact(claim: Settled) -> bytes:
    """One [user, state] pair of an OrderFact."""
    state = ClaimState(
        claim_id=claim_id_text(claim.claim_id),
        status=claim.status,
        sale=claim.pool,
        quantity=claim.quantity,
        price=claim.price,
        price_version=claim.price_version,
        epoch=claim.epoch,
        seq=claim.seq,
        order_id=claim.order_id,
        pay_by=claim.pay_by_ms,
    )
    return msgspec.msgpack.encode((claim.buyer, state))


# --- Entries of the order stream ---------------------------------------------------------------


def unpack_order_entry(entry_id: bytes, fields: Mapping[bytes, bytes]) -> OrderEntry:
    """An entry as claim_batch.lua or take.lua wrote it; one that cannot be read has a fault."""
    try:
        takes = [_take(row) for row in unpack_raw(fields[b"t"])]
        return OrderEntry(entry_id.decode(), int(fields[b"e"]), fields[b"h"].decode(), takes)
    except (ValueError, KeyError, TypeError) as error:
        fault = f"{type(error).__name__}: {error}"
        return OrderEntry(entry_id.decode(), 0, "", [], fault, dict(fields))


def _take(row: list[Any]) -> Take:
    if len(row) != _TAKE_FIELDS:
        raise ValueError(f"a take has {_TAKE_FIELDS} fields, not {len(row)}")
    kind, pool, seq, buyer, claim_id, quantity, price, price_version, at_ms = row
    numbers = (kind, pool, seq, quantity, price, price_version, at_ms)
    if not all(type(number) is int for number in numbers) or type(claim_id) is not bytes:
        raise ValueError("a take with a field of the wrong type")
    return Take(kind, pool, seq, buyer.decode(), claim_id, quantity, price, price_version, at_ms)
