"""`livesale webhooks` and `livesale dead-letters`, as an operator types them."""

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from server import cli
from server.errors import Refused
from server.telemetry import logs
from tests.host_stage import SECRET, open_stage
from tests.letter_desk import make_desk


@pytest.fixture
def shop(redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> str:
    """A show with a dead letter, and an environment that names its servers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logs, "configure", lambda level, json: None)  # it is for a whole process
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("LIVESALE_SECRET", SECRET.decode())
    monkeypatch.setenv("LIVESALE_WEBHOOK_ALLOW_PRIVATE", "1")

    async def make() -> str:
        async with open_stage(redis_url, database_url) as stage:
            desk = await make_desk(stage)
            await desk.mend()
            return desk.show_id

    return asyncio.run(make())


def livesale(*args: str) -> Any:
    """What a command printed: a list of JSON objects, or text."""
    done = CliRunner().invoke(cli.app, args)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    lines = [line for line in done.stdout.splitlines() if " host_act " not in line]
    return [json.loads(line) for line in lines] if "--json" in args else "\n".join(lines)


def test_dead_letters_when_typed_then_shown_and_redriven(shop: str) -> None:
    (letter,) = livesale("dead-letters", "list", "--show", shop, "--json")
    number = str(letter["dead_letter"])
    shown = json.loads(livesale("dead-letters", "show", number, "--show", shop))
    assert shown["content"]["buyer"] == "eve"
    assert "status redriven" in livesale("dead-letters", "redrive", number, "--show", shop)
    assert livesale("dead-letters", "list", "--show", shop, "--status", "parked") == ""
    with pytest.raises(Refused, match="redriven already"):
        livesale("dead-letters", "give-back", number, "--show", shop)


def test_webhooks_when_typed_then_added_listed_and_removed(shop: str) -> None:
    url = "http://127.0.0.1:9/hook"
    topics = ("--topic", "order.paid", "--topic", "stock.changed")
    (made,) = livesale("webhooks", "add", url, "--show", shop, *topics, "--json")
    assert made["secret"].startswith("whsec_")
    number = str(made["webhook"])
    listed = livesale("webhooks", "list", "--show", shop)
    assert f"url {url}" in listed
    assert "topics order.paid,stock.changed" in listed
    assert made["secret"] not in listed
    assert livesale("webhooks", "log", number, "--show", shop) == ""
    assert livesale("webhooks", "resend", number, "--show", shop) == "deliveries 0"
    livesale("webhooks", "remove", number, "--show", shop)
    assert "removed_by operator" in livesale("webhooks", "list", "--show", shop)
    with pytest.raises(Refused, match="not_found"):
        livesale("webhooks", "remove", "99", "--show", shop)
    with pytest.raises(Refused, match="bad_field"):
        livesale("webhooks", "add", url, "--show", shop, "--topic", "nothing")
