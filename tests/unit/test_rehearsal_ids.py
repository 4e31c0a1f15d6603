"""Shadow shows are told by their ids, and open to tickets only."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from server import clock
from server.acts.demo import DEMO_SHOW
from server.acts.payments import PaymentActs
from server.domain.identity import EVERY_SHOW, Identity
from server.domain.rehearsal import is_shadow, lets_in, new_shadow_id, ticket_for
from server.errors import Refused

SECRET = b"a secret of the tests, long enough for HS256"


def test_shadow_id_when_made_then_it_is_told_from_those_of_real_shows() -> None:
    assert is_shadow(new_shadow_id())
    assert new_shadow_id() != new_shadow_id()
    for show_id in (DEMO_SHOW, clock.new_short_id(), "r" + clock.new_short_id(), "r" * 24):
        assert not is_shadow(show_id)


def test_ticket_when_it_is_for_this_show_then_it_lets_in() -> None:
    shadow = new_shadow_id()
    ticket = ticket_for(SECRET, shadow)
    assert lets_in(SECRET, shadow, ticket)
    for other in ("", ticket[:-1], ticket.upper(), ticket_for(SECRET, new_shadow_id()), "é"):
        assert not lets_in(SECRET, shadow, other)
    assert not lets_in(b"another secret", shadow, ticket)
    assert lets_in(SECRET, DEMO_SHOW, "")


def test_token_when_it_is_for_every_show_then_no_shadow_is_among_them() -> None:
    shadow = new_shadow_id()
    host = Identity("ming", "ming", "host", EVERY_SHOW, 0)
    assert host.covers(DEMO_SHOW)
    assert not host.covers(shadow)
    assert host._replace(show=shadow).covers(shadow)


async def test_payment_when_the_order_is_rehearsed_then_no_money_moves() -> None:
    nobody = cast(Any, None)  # refused before anything is asked
    real = cast(Any, SimpleNamespace(chosen=SimpleNamespace(name="stripe")))
    shadow = new_shadow_id()
    buyer = Identity("u1", "u1", "viewer", shadow, 0)
    with pytest.raises(Refused, match="forbidden"):
        await PaymentActs(nobody, nobody, nobody, real).begin(buyer, shadow, 1)
