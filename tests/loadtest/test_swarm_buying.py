"""Buyers keep to the protocol, and whatever they are told is checked."""

from typing import Any

import pytest

from loadtest.audit.seen import gathered
from loadtest.measures.claims import AWAY_US, Claim, rows
from loadtest.swarm import buying
from loadtest.swarm.personas import Bot, Customer
from server.errors import ERRORS
from server.protocol import messages as m
from tests.loadtest.swarm_kit import Wire, arrive, frame, held, new_buyer, new_swarm, refusal


def told(buyer: Customer, *messages: Any) -> None:
    for message in messages:
        buyer.data_received(frame(message))


def refused(ref: int, name: str) -> m.RefusedReply:
    return refusal(ref, name, ERRORS[name].code)


def only_row(buyer: Customer) -> Claim:
    [row] = rows(buyer.till.table.log())
    return row


def offences(buyer: Customer) -> list[str]:
    return [offence.kind for offence in buyer.swarm.offences]


async def claimed(**crowd: Any) -> tuple[Customer, Wire, m.Claim]:
    buyer = new_buyer(new_swarm(), **crowd)
    transport = arrive(buyer)
    buyer.act(buyer.swarm.now_us())
    [claim] = transport.commands()
    return buyer, transport, claim


async def test_claim_when_held_and_confirmed_then_both_are_timed_and_it_is_over() -> None:
    buyer, _, claim = await claimed()
    told(buyer, m.Accepted(claim.ref, claim=held(claim)))
    assert not buyer.busy
    assert len(buyer.till.unsettled) == 1
    told(buyer, m.OrderEvent(held(claim, status="confirmed", order_id=5)))
    row = only_row(buyer)
    assert 0 < row.intended_us <= row.sent_us <= row.held_us <= row.confirmed_us
    assert (row.order_id, row.seq, row.attempts, row.ended_us) == (5, 42, 1, 0)
    assert not buyer.till.unsettled
    assert not buyer.wants
    assert not offences(buyer)


async def test_confirmation_when_it_overtakes_the_reply_then_nothing_is_lost_or_wrong() -> None:
    buyer, _, claim = await claimed()
    confirmed = held(claim, status="confirmed", order_id=5, receipt="")
    told(buyer, m.OrderEvent(confirmed), m.OrderEvent(confirmed))
    told(buyer, m.Accepted(claim.ref, claim=held(claim)))
    assert buyer.swarm.counts["confirmed"] == buyer.swarm.counts["held"] == 1
    assert not buyer.till.unsettled
    assert not offences(buyer)


async def test_refusal_when_it_is_final_then_the_claim_is_over() -> None:
    buyer, transport, claim = await claimed()
    told(buyer, refused(claim.ref, "sold_out"))
    row = only_row(buyer)
    assert row.ended_us
    assert row.code == ERRORS["sold_out"].code
    assert not buyer.till.unsettled
    assert not transport.commands()


@pytest.mark.parametrize("name", ["busy", "outcome_unknown", "sale_not_open", "rate_limited"])
async def test_refusal_when_it_is_for_now_then_the_same_claim_goes_out_again(name: str) -> None:
    buyer, transport, claim = await claimed()
    told(buyer, refused(claim.ref, name))
    [purchase] = buyer.till.unsettled
    assert buyer.busy
    assert not only_row(buyer).ended_us
    buyer.repeat(purchase)
    [again] = transport.commands()
    assert (again.claim_id, again.attempt) == (claim.claim_id, 1)
    assert again.ref != claim.ref
    told(buyer, refused(claim.ref, "sold_out"))  # an old attempt's says nothing
    assert buyer.busy
    told(buyer, m.Accepted(again.ref, claim=held(again)))
    assert (only_row(buyer).attempts, buyer.busy) == (2, False)


async def given_up(monkeypatch: pytest.MonkeyPatch, name: str) -> tuple[Customer, Wire, m.Claim]:
    """A buyer whose last attempt was refused for now."""
    monkeypatch.setattr(buying, "ATTEMPTS_MAX", 1)
    buyer, transport, claim = await claimed(claims_each=2)
    told(buyer, refused(claim.ref, "busy"))
    [purchase] = buyer.till.unsettled
    buyer.repeat(purchase)
    [again] = transport.commands()
    told(buyer, refused(again.ref, name))
    return buyer, transport, claim


@pytest.mark.parametrize("name", ["outcome_unknown", "sale_not_open"])
async def test_claim_when_given_up_and_confirmed_after_all_then_nobody_contradicts(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    buyer, _, claim = await given_up(monkeypatch, name)
    assert only_row(buyer).ended_us
    assert buyer.ready  # for another one
    told(buyer, m.OrderEvent(held(claim, status="confirmed", order_id=5)))
    assert only_row(buyer).order_id == 5
    assert not buyer.till.unsettled
    assert not offences(buyer)
    [asked] = gathered(rows(buyer.till.table.log())).values()
    assert (asked.refused_us, asked.is_split) == (0, False)


async def test_claim_when_given_up_then_it_is_asked_for_in_the_end_but_never_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buyer, transport, claim = await given_up(monkeypatch, "outcome_unknown")
    buyer.till.ask(everyone=True)
    [asked] = transport.commands()
    assert asked == m.OrderStatus(asked.ref, claim.claim_id)
    told(buyer, m.Accepted(asked.ref, order=m.ClaimState(claim.claim_id, "not_seen")))
    assert not buyer.till.unsettled
    assert not transport.commands()
    assert buyer.swarm.counts["given_up"] == 1


async def test_socket_when_it_is_lost_before_the_answer_then_the_same_claim_goes_out_again() -> (
    None
):
    buyer, transport, claim = await claimed()
    transport.abort()
    [again] = arrive(buyer).commands()
    assert (again.claim_id, again.attempt) == (claim.claim_id, 1)
    assert len(buyer.purchases) == 1


async def test_socket_when_it_is_lost_after_the_hold_then_the_buyer_asks() -> None:
    buyer, transport, claim = await claimed()
    told(buyer, m.Accepted(claim.ref, claim=held(claim)))
    transport.abort()
    transport = arrive(buyer)
    [asked] = transport.commands()
    assert asked == m.OrderStatus(asked.ref, claim.claim_id)
    told(buyer, m.Accepted(asked.ref, order=held(claim, status="confirmed", order_id=5)))
    row = only_row(buyer)
    assert row.order_id == 5
    [(lost_us, back_us)] = row.cuts
    assert row.held_us <= lost_us <= back_us <= row.confirmed_us
    transport.abort()  # nothing is open any more
    assert only_row(buyer).cuts == row.cuts


async def test_socket_when_it_is_lost_for_good_then_the_open_claim_says_so() -> None:
    buyer, transport, claim = await claimed()
    told(buyer, m.Accepted(claim.ref, claim=held(claim)))
    assert only_row(buyer).cuts == ()
    transport.abort()
    [(lost_us, back_us)] = only_row(buyer).cuts
    assert (lost_us > 0, back_us) == (True, AWAY_US)


async def test_hold_when_the_server_has_forgotten_it_then_it_is_shown_the_proof() -> None:
    buyer, transport, claim = await claimed()
    told(buyer, m.Accepted(claim.ref, claim=held(claim)))
    buyer.till.ask(everyone=True)
    [asked] = transport.commands()
    told(buyer, m.Accepted(asked.ref, order=m.ClaimState(claim.claim_id, "not_seen")))
    [purchase] = buyer.till.unsettled
    buyer.repeat(purchase)
    [again] = transport.commands()
    assert again.proof == m.Proof("r", 1, 42, 990)
    assert (again.claim_id, again.attempt) == (claim.claim_id, 1)
    told(buyer, m.OrderEvent(held(claim, status="released_by_incident")))
    assert not buyer.till.unsettled
    assert buyer.swarm.counts["released_by_incident"] == 1
    assert not offences(buyer)


@pytest.mark.parametrize(
    ("first", "second", "kinds"),
    [
        ({}, {}, []),
        ({}, {"status": "confirmed", "order_id": 5}, []),
        ({}, {"quantity": 2}, ["two_answers", "two_answers"]),
        ({}, {"price": 991}, ["two_answers"]),
        ({}, {"seq": 43}, ["two_answers"]),
        ({}, {"epoch": 2, "seq": 1}, []),  # Redis has lost its data, the hold was redone
        (
            {"status": "confirmed", "order_id": 5},
            {"status": "paid", "order_id": 6},
            ["order_changed"],
        ),
    ],
)
async def test_answers_to_one_claim_when_they_differ_then_it_is_an_offence(
    first: dict[str, Any], second: dict[str, Any], kinds: list[str]
) -> None:
    buyer, _, claim = await claimed()
    changed = {"sale": 7, "quantity": 1, "price": 990, "epoch": 1, "seq": 42} | second
    state = m.ClaimState(claim.claim_id, changed.pop("status", "held"), **changed)
    told(buyer, m.Accepted(claim.ref, claim=held(claim, **first)), m.OrderEvent(state))
    assert offences(buyer) == kinds


async def test_claim_when_held_after_a_final_refusal_then_it_is_an_offence() -> None:
    buyer, _, claim = await claimed()
    told(buyer, refused(claim.ref, "sold_out"), m.OrderEvent(held(claim)))
    assert offences(buyer) == ["two_answers"]


async def test_order_when_its_user_never_asked_then_it_is_an_offence() -> None:
    buyer, _, _ = await claimed()
    told(buyer, m.OrderEvent(m.ClaimState("0199c5e2-7b3c-7c11-9e2a-1b2c3d4e5f60", "confirmed")))
    assert offences(buyer) == ["foreign_claim"]


async def test_bot_when_it_acts_then_all_its_sockets_claim_in_the_same_instant() -> None:
    swarm = new_swarm()
    bot = new_buyer(swarm, Bot, sockets=3)
    assert isinstance(bot, Bot)
    for _ in range(2):
        other = new_buyer(swarm, Bot, sockets=3)
        assert isinstance(other, Bot)
        other.till, other.purchases = bot.till, bot.purchases
        bot.others.append(other)
    sockets = [bot, *bot.others]
    wires = [arrive(each) for each in sockets]
    bot.act(swarm.now_us())
    claims = [claim for each in wires for claim in each.commands()]
    assert len({claim.claim_id for claim in claims}) == 3
    told(bot, m.Accepted(claims[0].ref, claim=held(claims[0])))
    confirmed = m.OrderEvent(held(claims[0], status="confirmed", order_id=5))
    for each in sockets:  # every connection of a user hears of its orders
        told(each, confirmed)
    assert swarm.counts["confirmed"] == 1
    assert not swarm.offences


async def test_buyer_when_it_has_a_claim_without_answer_then_it_is_busy() -> None:
    buyer, transport, claim = await claimed(claims_each=2)
    assert buyer.wants
    assert not buyer.ready
    told(buyer, refused(claim.ref, "sold_out"))
    assert buyer.ready
    buyer.act(buyer.swarm.now_us())
    [other] = transport.commands()
    assert other.claim_id != claim.claim_id
    assert not buyer.wants
