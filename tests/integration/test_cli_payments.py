"""`livesale payments`, as an operator types it."""

import asyncio
import json
import uuid
from typing import Any

import pytest
from typer.testing import CliRunner

from server import cli
from server.errors import Refused
from server.payments.provider import ProviderRefused
from server.telemetry import logs
from tests.bookshop import SHOW
from tests.till import open_till


@pytest.fixture
def refused(
    redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> list[str]:
    """Two payments whose refunds were refused, and an environment that names their servers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logs, "configure", lambda level, json: None)  # it is for a whole process
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("DATABASE_URL", database_url)

    async def make() -> list[str]:
        async with open_till(redis_url, database_url) as till:
            await till.open_sale()
            till.provider.refund_answers = [ProviderRefused("disputed"), ProviderRefused("gone")]
            made = []
            for buyer in ("an", "bo"):
                made.append(str(await till.begin(await till.order(buyer))))
                await till.tell(uuid.UUID(made[-1]), "captured", amount=1)
                await till.round()
            await till.tell(await till.begin(await till.order("cy")), "captured")
            return made

    return asyncio.run(make())


def payments(*args: str) -> Any:
    """What `livesale payments` printed: a list of JSON objects, or lines of text."""
    done = CliRunner().invoke(cli.app, ("payments", *args))
    if done.exception:
        raise done.exception
    lines = [line for line in done.stdout.splitlines() if " host_act " not in line]
    return [json.loads(line) for line in lines] if "--json" in args else lines


def test_payments_when_listed_then_those_that_were_asked_for(refused: list[str]) -> None:
    listed = payments("list", "--json")
    assert [row["status"] for row in listed] == ["captured"] + ["refund_requested"] * 2
    assert [row["payment_id"] for row in payments("list", "--refused", "--json")] == refused[::-1]
    assert payments("list", "--unfinished") == payments("list", "--refused", "--show", SHOW)
    assert "waits for an operator  wrong_amount (ProviderRefused: gone)" in payments("list")[1]
    assert payments("list", "--show", "another") == []
    assert len(payments("list", "--limit", "1")) == 1


def test_payment_when_shown_then_all_that_happened_to_it(refused: list[str]) -> None:
    payment, asked_again = refused
    payments("refunded-by-hand", payment, "--note", "现金 4711")
    payments("refund-again", asked_again)
    first, *happened = payments("show", payment)
    assert "  refunded by hand  wrong_amount" in first
    assert [line.split("  ", 2)[2] for line in happened[:1]] == ["begun"]
    assert [line.split("  ")[2] for line in happened[2:]] == ["refunded_by_hand"]
    assert happened[2].endswith("by operator  现金 4711")
    assert payments("show", asked_again)[-1].endswith("refund_again  by operator")
    (found,) = payments("show", payment, "--json")
    assert found["payment"]["payment_id"] == payment
    assert [event["outcome"] for event in found["events"]] == ["refund_requested"]
    assert [act["actor"] for act in found["acts"]] == ["operator"]


def test_refunds_when_asked_for_again_without_a_name_then_all(refused: list[str]) -> None:
    asked = payments("refund-again", "--json")
    assert {view["payment_id"] for view in asked} == set(refused)
    assert payments("list", "--refused") == []
    assert len(payments("list", "--unfinished")) == 2


def test_payment_when_it_cannot_be_done_then_refused(refused: list[str]) -> None:
    nobody = str(uuid.uuid4())
    for args in (("show", nobody), ("refund-again", nobody)):
        with pytest.raises(Refused, match="not_found"):
            payments(*args)
    with pytest.raises(Refused, match="bad_field"):
        payments("refunded-by-hand", refused[0], "--note", " ")
    with pytest.raises(SystemExit):
        payments("show", "7")
    with pytest.raises(SystemExit):
        payments("refunded-by-hand", refused[0])
