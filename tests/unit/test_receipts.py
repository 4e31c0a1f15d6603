"""Receipts prove exactly the hold they were signed for."""

import msgspec
import pytest

from server.hub.receipts import Receipts
from server.protocol.messages import ClaimState

RECEIPTS = Receipts(b"k" * 32)
HELD = ClaimState(
    claim_id="01890a5d-ac96-774b-bcce-b302099a8057",
    status="held",
    sale=7,
    quantity=2,
    price=9_900,
    price_version=3,
    epoch=1,
    seq=42,
)


def signed(state: ClaimState = HELD, show: str = "demo", buyer: str = "u1") -> ClaimState:
    return msgspec.structs.replace(state, receipt=RECEIPTS.sign(show, buyer, state))


def test_verify_when_the_hold_is_the_signed_one_then_true() -> None:
    assert RECEIPTS.verify("demo", "u1", signed())


@pytest.mark.parametrize(
    "change",
    [
        {"claim_id": "01890a5d-ac96-774b-bcce-b302099a8058"},
        {"sale": 8},
        {"quantity": 3},
        {"price": 1},
        {"price_version": 4},
        {"epoch": 2},
        {"seq": 43},
        {"receipt": ""},
        {"receipt": "é" * 32},
    ],
)
def test_verify_when_anything_differs_then_false(change: dict[str, object]) -> None:
    assert not RECEIPTS.verify("demo", "u1", msgspec.structs.replace(signed(), **change))


def test_verify_when_show_buyer_or_key_differ_then_false() -> None:
    assert not RECEIPTS.verify("other", "u1", signed())
    assert not RECEIPTS.verify("demo", "u2", signed())
    assert not Receipts(b"x" * 32).verify("demo", "u1", signed())


def test_sign_when_the_hold_is_confirmed_later_then_the_receipt_stays_the_same() -> None:
    confirmed = msgspec.structs.replace(HELD, status="confirmed", order_id=5, pay_by=1)
    assert RECEIPTS.sign("demo", "u1", confirmed) == RECEIPTS.sign("demo", "u1", HELD)
