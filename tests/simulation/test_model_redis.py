"""The model Redis against the real server: the same commands and scripts, the same answers.

A simulation on a wrong model would prove nothing. Maps that cmsgpack packs may have their keys in
any order, so packed values are compared after unpacking.
"""

import asyncio
import hashlib
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import msgpack
import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.store import scripts
from server.store.room import RoomStore
from server.store.stock import Stock
from tests.property.test_claim_batch_model import Run, plans
from tests.shop import Shop
from tests.simulation.model_redis import COMMANDS as MODELLED
from tests.simulation.model_redis import ModelRedis
from tests.simulation.network import SimRedis, parsed, words_of

START_MS = 1_790_000_000_000
WORDS = st.sampled_from([b"a", b"b", b"c", b"1", b"-7", b"", b"\x00\xff"])
KEYS = st.sampled_from([b"k1", b"k2", b"k3"])
IDS = st.sampled_from([b"1-0", b"2-0", b"2-1", b"3", b"9-9"])
COUNT = st.sampled_from([b"1", b"2", b"10"])
SECONDS = 1_000  # the server's get fewer while a test runs, the model's do not

COMMANDS = st.one_of(
    st.tuples(st.just(b"HSET"), KEYS, WORDS, WORDS),
    st.tuples(st.just(b"HSETNX"), KEYS, WORDS, WORDS),
    st.tuples(st.just(b"HSET"), KEYS, WORDS, WORDS, WORDS, WORDS),
    st.tuples(st.just(b"HDEL"), KEYS, WORDS, WORDS),
    st.tuples(st.just(b"HMGET"), KEYS, WORDS, WORDS),
    st.tuples(st.sampled_from([b"HGETALL", b"HKEYS", b"HLEN", b"TYPE", b"LLEN", b"XLEN"]), KEYS),
    st.tuples(st.sampled_from([b"EXISTS", b"DEL", b"UNLINK", b"GET", b"SCARD"]), KEYS),
    st.tuples(st.sampled_from([b"TTL", b"PERSIST"]), KEYS),
    st.tuples(st.just(b"EXPIRE"), KEYS, st.sampled_from([b"%d" % SECONDS, b"-1"])),
    st.tuples(st.just(b"HGET"), KEYS, WORDS),
    st.tuples(st.just(b"HEXISTS"), KEYS, WORDS),
    st.tuples(st.just(b"SET"), KEYS, WORDS),
    st.tuples(st.just(b"SADD"), KEYS, WORDS, WORDS),
    st.tuples(st.just(b"LPOP"), KEYS, COUNT),
    st.tuples(st.just(b"RPUSH"), KEYS, WORDS, WORDS),
    st.tuples(st.just(b"LREM"), KEYS, st.just(b"0"), WORDS),
    st.tuples(st.just(b"LTRIM"), KEYS, st.sampled_from([b"0", b"-2"]), st.just(b"-1")),
    st.tuples(st.just(b"LRANGE"), KEYS, st.just(b"0"), st.just(b"-1")),
    st.tuples(st.just(b"XADD"), KEYS, IDS, st.just(b"f"), WORDS),
    st.tuples(st.just(b"XADD"), KEYS, st.just(b"MAXLEN"), st.just(b"="), COUNT, IDS,
              st.just(b"f"), WORDS),
    st.tuples(st.just(b"XDEL"), KEYS, IDS),
    st.tuples(st.just(b"XACK"), KEYS, st.just(b"g"), IDS),
    st.tuples(st.just(b"XRANGE"), KEYS, st.sampled_from([b"-", b"(1-0", b"2"]), st.just(b"+"),
              st.just(b"COUNT"), COUNT),
    st.tuples(st.just(b"XREVRANGE"), KEYS, st.just(b"+"), st.just(b"-"), st.just(b"COUNT"), COUNT),
    st.tuples(st.just(b"XGROUP"), st.just(b"CREATE"), KEYS, st.just(b"g"),
              st.sampled_from([b"0", b"$"]), st.just(b"MKSTREAM")),
    st.tuples(st.just(b"XREADGROUP"), st.just(b"GROUP"), st.just(b"g"),
              st.sampled_from([b"c1", b"c2"]), st.just(b"COUNT"), COUNT, st.just(b"STREAMS"), KEYS,
              st.just(b">")),
    st.tuples(st.just(b"XAUTOCLAIM"), KEYS, st.just(b"g"), st.just(b"c1"), st.just(b"0"),
              st.sampled_from([b"0-0", b"2-0"]), st.just(b"COUNT"), COUNT),
)  # fmt: skip


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        client.response_callbacks.clear()
        yield client


def real(client: "redis.Redis", *words: bytes) -> Any:
    """The raw reply of the server; an error as its class of words."""
    try:
        reply = client.execute_command(*words)
    except redis.exceptions.ResponseError as error:
        return _error(str(error))
    return "OK" if reply == b"OK" else reply


def modelled(model: ModelRedis, *words: bytes) -> Any:
    try:
        reply = model.execute(*words)
    except redis.exceptions.ResponseError as error:
        return _error(str(error))
    return reply.encode() if isinstance(reply, str) and reply != "OK" else reply


def _error(text: str) -> str:
    """What kind of error: the server words them a little differently from case to case."""
    for kind in ("WRONGTYPE", "NOGROUP", "BUSYGROUP", "XADD", "wrong kind"):
        if kind in text:
            return "WRONGTYPE" if kind == "wrong kind" else kind
    found = re.search(r"'?(No such key|Consumer Group name already exists|smaller)", text)
    return (
        {"No such key": "NOGROUP", "smaller": "XADD"}.get(found[1], "BUSYGROUP") if found else text
    )


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(commands=st.lists(COMMANDS, max_size=60))
def test_model_when_any_commands_come_then_it_answers_like_the_server(
    client: "redis.Redis", commands: list[tuple[bytes, ...]]
) -> None:
    client.execute_command("FLUSHALL")
    model = ModelRedis(lambda: START_MS, lambda *_: 0)
    for words in commands:
        expected, found = real(client, *words), modelled(model, *words)
        if words[0] in (b"HGETALL", b"HKEYS"):
            expected, found = sorted(expected), sorted(found)
        if words[0] == b"TTL" and 0 < expected < SECONDS:
            expected = SECONDS
        assert found == expected, words
    assert _dump_model(model) == _dump_real(client)
    model.restart()
    assert _dump_model(model) == _dump_real(client), "the log does not lead to the same data"


def _dump_real(client: "redis.Redis") -> dict[bytes, Any]:
    return {
        key: _value(lambda *w: real(client, *w), key) for key in client.execute_command("KEYS", "*")
    }


def _dump_model(model: ModelRedis) -> dict[bytes, Any]:
    return {key: _value(lambda *w: modelled(model, *w), key) for key in model.data}


def _value(run: Any, key: bytes) -> Any:
    kind = run(b"TYPE", key)
    if kind == b"hash":
        flat = run(b"HGETALL", key)
        return dict(zip(flat[::2], map(_unpacked, flat[1::2]), strict=True))
    if kind == b"set":
        return sorted(run(b"SMEMBERS", key))
    if kind == b"list":
        return run(b"LRANGE", key, b"0", b"-1")
    if kind == b"stream":
        groups = [run(b"XPENDING", key, b"g")[:3]]
        return [_plain(entry) for entry in run(b"XRANGE", key, b"-", b"+")], groups
    return run(b"GET", key)


def _plain(reply: Any) -> Any:
    """A reply without what may differ: the order of hashes, and of packed maps' keys."""
    if isinstance(reply, list):
        return sorted((_plain(item) for item in reply), key=repr)
    if isinstance(reply, bytes):
        return _unpacked(reply)
    return reply.encode() if isinstance(reply, str) else reply


def _unpacked(value: bytes) -> Any:
    if b"\x80" <= value[:1] < b"\x90" or value[:1] == b"\xde":
        return sorted(msgpack.unpackb(value, raw=True).items(), key=repr)
    return value


# --- Scripts -----------------------------------------------------------------------------------

CLOCK = "clock"
_UNORDERED = frozenset({b"HSCAN", b"HGETALL", b"HKEYS", b"TIME"})


class Shadow(SimRedis):
    """A client of the real server that gives every command to a model too and compares.

    Scripts read the time from a key (`timeless`), so that both servers see the same; entries whose
    id the real server makes get the same id in the model.
    """

    def __init__(self, raw: Any, run_id: bytes) -> None:
        self._raw = raw
        self._now_ms = START_MS
        self.model = ModelRedis(lambda: self._now_ms, lambda *_: 0)
        self.model.run_id = run_id

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        seconds, micros = await self._raw.execute_command("TIME")
        await self._both((b"HSET", b"clock", b"s", seconds, b"u", micros))
        reply = await self._both(words_of(args))
        return parsed(args[0], reply, options)

    async def _both(self, words: tuple[bytes, ...]) -> Any:
        try:
            expected: Any = await self._raw.execute_command(*words)
        except redis.exceptions.ResponseError as error:
            assert isinstance(self._model_reply(words), redis.exceptions.ResponseError), words[:2]
            raise error
        for key in await self._raw.execute_command("KEYS", "*:orders"):
            for entry_id, _ in await self._raw.execute_command("XREVRANGE", key, "+", "-"):
                self._now_ms = max(self._now_ms, int(entry_id.split(b"-")[0]))
        found = self._model_reply(words)
        if words[0] not in _UNORDERED:
            assert _plain(found) == _plain(expected), words[:2]
        return expected

    def _model_reply(self, words: tuple[bytes, ...]) -> Any:
        try:
            return self.model.execute(*words)
        except redis.exceptions.ResponseError as error:
            return error


def timeless(name: str) -> scripts.Script:
    """The script, its time from a key."""
    source = LOAD(name).source.replace("redis.call('TIME')", "redis.call('HMGET','clock','s','u')")
    return scripts.Script(source, hashlib.sha1(source.encode()).hexdigest())


LOAD = scripts.load


@pytest.mark.parametrize("name", scripts.names())
def test_model_when_a_script_needs_a_command_then_the_model_has_it(name: str) -> None:
    """Without this a missing command shows only in the plans that happen to need it."""
    called = set(re.findall(r"redis\.call\('(\w+)'", LOAD(name).source))
    assert called
    assert {word.lower() for word in called} <= set(MODELLED)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(plan=plans)
def test_model_when_it_runs_the_servers_scripts_then_it_answers_like_the_server(
    redis_url: str, plan: list[tuple[Any, ...]]
) -> None:
    asyncio.run(_follow(redis_url, plan))


async def _follow(redis_url: str, plan: list[tuple[Any, ...]]) -> None:
    # Closed in any case: a test that comes later would be blamed for what a failed plan left open.
    async with redis.asyncio.Redis.from_url(redis_url, protocol=2) as raw:
        await _follow_on(raw, redis_url, plan)


async def _follow_on(raw: Any, redis_url: str, plan: list[tuple[Any, ...]]) -> None:
    raw.response_callbacks.clear()
    await raw.execute_command("FLUSHALL")
    await raw.execute_command("SCRIPT", "FLUSH")
    info = await raw.execute_command("INFO", "server")
    shadow = Shadow(raw, re.search(rb"run_id:(\w+)", info)[1])  # type: ignore[index]
    clients = SimpleNamespace(commands=shadow)
    table = scripts.Scripts(shadow)  # type: ignore[arg-type]
    shop = Shop(clients, table, Stock(table), RoomStore(table))  # type: ignore[arg-type]
    with patch.object(scripts, "load", timeless):
        run = Run(shop, "model")
        await run.start()
        for step in plan:
            await run.step(step)
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        client.response_callbacks.clear()
        assert _dump_model(shadow.model) == _dump_real(client)
