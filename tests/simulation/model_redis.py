"""A model of Redis: the commands livesale uses, its scripts, and how it loses data.

It has no sockets and no time of its own: `now_ms` is asked for the time, `publish` gets what
SPUBLISH sends. What was written is kept as Redis' append-only file has it, script by script, so
that `restart(lose=...)` can forget a suffix of it and nothing else: a script is there whole or not
at all. tests/simulation/test_model_redis.py holds it against a real server.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis.exceptions import ResponseError

from tests.simulation.lua_engine import engine
from tests.simulation.model_stream import Group, Stream, from_id, to_id

Words = tuple[bytes, ...]
_KINDS: Final = {dict: "hash", Stream: "stream", bytes: "string", list: "list", set: "set"}
_WRONGTYPE: Final = "WRONGTYPE Operation against a key holding the wrong kind of value"
_OOM: Final = "OOM command not allowed when used memory > 'maxmemory'."


@dataclass(slots=True)
class Written:
    """The write commands of one script, or one alone: what is lost or kept together."""

    at_ms: int
    commands: list[Words] = field(default_factory=list)


class ModelRedis:
    """One server. `run_id` changes with every restart, `out_of_memory` refuses what would grow."""

    def __init__(self, now_ms: Callable[[], int], publish: Callable[[bytes, bytes], int]) -> None:
        self._clock = now_ms
        self._publish = publish
        self._replay_ms: int | None = None
        self._written: Written | None = None
        self.log: list[Written] = []
        self.starts = 0
        self.out_of_memory = False
        self.config = {b"appendonly": b"yes", b"appendfsync": b"everysec"}
        self._forget()

    def _forget(self) -> None:
        self.data: dict[bytes, Any] = {}
        self.expires: dict[bytes, int] = {}
        self.scripts: dict[bytes, bytes] = {}
        self.starts += 1
        self.run_id = b"%040x" % self.starts

    @property
    def now_ms(self) -> int:
        return self._clock() if self._replay_ms is None else self._replay_ms

    # --- Losing data --------------------------------------------------------------------------

    def restart(self, lose: int = 0) -> None:
        """Start again from the log without its last `lose` scripts; scripts are forgotten."""
        kept = self.log[: len(self.log) - lose]
        self._forget()
        self.log = []
        for written in kept:
            self._replay_ms = written.at_ms
            self._written = Written(written.at_ms)
            for words in written.commands:
                self._execute(words)
            self._commit()
        self._replay_ms = None

    def written_since(self, at_ms: int) -> int:
        """How many entries of the log are younger."""
        return sum(written.at_ms >= at_ms for written in self.log)

    # --- Commands -----------------------------------------------------------------------------

    def execute(self, *words: bytes) -> Any:
        """One command as a client sends it. Raises ResponseError."""
        name = words[0].upper()
        if name == b"EVALSHA":
            return self._evalsha(words)
        self._written = Written(self.now_ms)
        try:
            return self._execute(words)
        finally:
            self._commit()

    def _evalsha(self, words: Words) -> Any:
        source = self.scripts.get(words[1].lower())
        if source is None:
            raise ResponseError("NOSCRIPT No matching script. Please use EVAL.")
        count = int(words[2])
        keys, argv = words[3 : 3 + count], words[3 + count :]
        self._written = Written(self.now_ms)
        self._replay_ms = self.now_ms  # time stands still in a script
        try:
            return engine().run(source, keys, argv, self._call)
        finally:
            self._replay_ms = None
            self._commit()

    def _call(self, *words: bytes) -> Any:
        return self._execute(words)

    def _commit(self) -> None:
        written, self._written = self._written, None
        if written is not None and written.commands:
            self.log.append(written)

    def _execute(self, words: Words) -> Any:
        name = words[0].decode().lower()
        handler = COMMANDS.get(name)
        if handler is None:
            raise ResponseError(f"ERR unknown command '{name}'")
        if name in _GROWING and self.out_of_memory and self._written and not self._written.commands:
            raise ResponseError(_OOM)
        return handler(self, *words[1:])

    def _log(self, *words: bytes) -> None:
        """Note a write that was made."""
        assert self._written is not None
        self._written.commands.append(words)

    # --- Values -------------------------------------------------------------------------------

    def _find(self, key: bytes, kind: type[Any]) -> Any:
        """The value, None where there is none."""
        value = self._alive(key)
        if value is not None and type(value) is not kind:
            raise ResponseError(_WRONGTYPE)
        return value

    def _alive(self, key: bytes) -> Any:
        """The value of any kind; None where there is none, or its time was up: it is dropped."""
        if (until := self.expires.get(key)) is not None and until <= self.now_ms:
            del self.data[key], self.expires[key]
        return self.data.get(key)

    def _make(self, key: bytes, kind: type[Any]) -> Any:
        value = self._find(key, kind)
        if value is None:
            value = self.data[key] = kind()
        return value

    def _drop_if_empty(self, key: bytes) -> None:
        if not self.data[key]:
            del self.data[key]
            self.expires.pop(key, None)

    # --- Server -------------------------------------------------------------------------------

    def ping(self) -> str:
        return "PONG"

    def time(self) -> list[bytes]:
        now = self.now_ms
        return [b"%d" % (now // 1000), b"%d" % (now % 1000 * 1000)]

    def info(self, *sections: bytes) -> bytes:
        lines = (
            b"# Server", b"redis_version:7.2.4", b"server_name:valkey", b"run_id:" + self.run_id,
            b"# Memory", b"maxmemory_policy:noeviction",
            b"# Persistence", b"loading:0", b"aof_enabled:1",
            b"# Replication", b"role:master", b"connected_slaves:0", b"",
        )  # fmt: skip
        return b"\r\n".join(lines)

    def config_command(self, what: bytes, *names: bytes) -> list[bytes]:
        assert what.upper() == b"GET"
        return [word for name in names for word in (name, self.config.get(name, b""))]

    def script(self, what: bytes, *words: bytes) -> Any:
        if what.upper() == b"FLUSH":
            self.scripts.clear()
            return "OK"
        assert what.upper() == b"LOAD"
        sha = hashlib.sha1(words[0], usedforsecurity=False).hexdigest().encode()
        self.scripts[sha] = words[0]
        return sha

    def flushall(self, *_: bytes) -> str:
        self.data.clear()
        self.expires.clear()
        self._log(b"flushall")
        return "OK"

    def spublish(self, channel: bytes, payload: bytes) -> int:
        return self._publish(channel, payload)

    # --- Keys ---------------------------------------------------------------------------------

    def type(self, key: bytes) -> str:
        value = self._alive(key)
        return "none" if value is None else _KINDS[type(value)]

    def exists(self, *keys: bytes) -> int:
        return sum(self._alive(key) is not None for key in keys)

    def delete(self, *keys: bytes) -> int:
        found = [key for key in dict.fromkeys(keys) if self._alive(key) is not None]
        for key in found:
            del self.data[key]
            self.expires.pop(key, None)
        if found:
            self._log(b"del", *found)
        return len(found)

    def pexpire(self, key: bytes, ms: bytes) -> int:
        return self.pexpireat(key, b"%d" % (self.now_ms + int(ms)))

    def expire(self, key: bytes, seconds: bytes) -> int:
        return self.pexpire(key, b"%d" % (int(seconds) * 1000))

    def pexpireat(self, key: bytes, at_ms: bytes) -> int:
        if self._alive(key) is None:
            return 0
        self.expires[key] = int(at_ms)
        self._log(b"pexpireat", key, at_ms)
        self._alive(key)
        return 1

    def ttl(self, key: bytes) -> int:
        """Whole seconds, rounded; -1 without an expiry, -2 without a value."""
        if self._alive(key) is None:
            return -2
        until = self.expires.get(key)
        return -1 if until is None else (until - self.now_ms + 500) // 1000

    def persist(self, key: bytes) -> int:
        if self._alive(key) is None or self.expires.pop(key, None) is None:
            return 0
        self._log(b"persist", key)
        return 1

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._find(key, bytes)
        return value

    def set(self, key: bytes, value: bytes, *options: bytes) -> str:
        self.data[key] = value
        self.expires.pop(key, None)
        self._log(b"set", key, value)
        if options:
            assert options[0].upper() == b"PX"
            self.pexpireat(key, b"%d" % (self.now_ms + int(options[1])))
        return "OK"

    # --- Hashes -------------------------------------------------------------------------------

    def hset(self, key: bytes, *pairs: bytes) -> int:
        value = self._make(key, dict)
        if not pairs or len(pairs) % 2:
            raise ResponseError("ERR wrong number of arguments for 'hset' command")
        new = 0
        for name, text in zip(pairs[::2], pairs[1::2], strict=True):
            new += name not in value
            value[name] = text
        self._log(b"hset", key, *pairs)
        return new

    def hsetnx(self, key: bytes, name: bytes, text: bytes) -> int:
        if name in (self._find(key, dict) or {}):
            return 0
        return self.hset(key, name, text)

    def hincrby(self, key: bytes, name: bytes, by: bytes) -> int:
        number = int((self._find(key, dict) or {}).get(name, 0)) + int(by)
        self.hset(key, name, b"%d" % number)
        return number

    def hget(self, key: bytes, name: bytes) -> bytes | None:
        return (self._find(key, dict) or {}).get(name)

    def hmget(self, key: bytes, *names: bytes) -> list[bytes | None]:
        value = self._find(key, dict) or {}
        return [value.get(name) for name in names]

    def hexists(self, key: bytes, name: bytes) -> int:
        return int(name in (self._find(key, dict) or {}))

    def hlen(self, key: bytes) -> int:
        return len(self._find(key, dict) or {})

    def hkeys(self, key: bytes) -> list[bytes]:
        return list(self._find(key, dict) or {})

    def hvals(self, key: bytes) -> list[bytes]:
        return list((self._find(key, dict) or {}).values())

    def hgetall(self, key: bytes) -> list[bytes]:
        value = self._find(key, dict) or {}
        return [word for pair in value.items() for word in pair]

    def hscan(self, key: bytes, cursor: bytes, *_: bytes) -> list[Any]:
        return [b"0", self.hgetall(key)]

    def hdel(self, key: bytes, *names: bytes) -> int:
        value = self._find(key, dict)
        found = [name for name in dict.fromkeys(names) if value and name in value]
        for name in found:
            del value[name]
        if found:
            self._log(b"hdel", key, *found)
            self._drop_if_empty(key)
        return len(found)

    # --- Lists --------------------------------------------------------------------------------

    def rpush(self, key: bytes, *items: bytes) -> int:
        value = self._make(key, list)
        value.extend(items)
        self._log(b"rpush", key, *items)
        return len(value)

    def ltrim(self, key: bytes, first: bytes, last: bytes) -> str:
        value = self._find(key, list)
        if value is not None:
            value[:] = _cut(value, int(first), int(last))
            self._log(b"ltrim", key, first, last)
            self._drop_if_empty(key)
        return "OK"

    def lpop(self, key: bytes, count: bytes) -> list[bytes] | None:
        value = self._find(key, list)
        if value is None:
            return None
        popped = value[: int(count)]
        del value[: int(count)]
        self._log(b"lpop", key, count)
        self._drop_if_empty(key)
        return popped

    def lrem(self, key: bytes, count: bytes, item: bytes) -> int:
        assert count == b"0", "only removing all is modelled"
        value = self._find(key, list)
        if value is None or item not in value:
            return 0
        removed = value.count(item)
        value[:] = [kept for kept in value if kept != item]
        self._log(b"lrem", key, count, item)
        self._drop_if_empty(key)
        return int(removed)

    def llen(self, key: bytes) -> int:
        return len(self._find(key, list) or ())

    def lrange(self, key: bytes, first: bytes, last: bytes) -> list[bytes]:
        return _cut(self._find(key, list) or [], int(first), int(last))

    # --- Sets ---------------------------------------------------------------------------------

    def sadd(self, key: bytes, *items: bytes) -> int:
        value = self._make(key, set)
        new = len(set(items) - value)
        value.update(items)
        self._log(b"sadd", key, *items)
        return new

    def scard(self, key: bytes) -> int:
        return len(self._find(key, set) or ())

    def smembers(self, key: bytes) -> list[bytes]:
        return sorted(self._find(key, set) or ())

    # --- Streams ------------------------------------------------------------------------------

    def xadd(self, key: bytes, *words: bytes) -> bytes:
        stream = self._find(key, Stream)
        rest = list(words)
        most = None
        if rest[0].upper() == b"MAXLEN":
            rest.pop(0)
            if rest[0] in (b"=", b"~"):
                rest.pop(0)
            most = int(rest.pop(0))
        entry_id = (stream or Stream()).next_id(rest.pop(0), self.now_ms)
        stream = self._make(key, Stream)
        stream.add(entry_id, rest)
        if most is not None:
            stream.trim(most)
        limit = () if most is None else (b"MAXLEN", b"%d" % most)
        self._log(b"xadd", key, *limit, from_id(entry_id), *rest)
        return from_id(entry_id)

    def xdel(self, key: bytes, *ids: bytes) -> int:
        stream = self._find(key, Stream)
        if stream is None:
            return 0
        deleted = sum(stream.delete(to_id(word)) for word in ids)
        if deleted:
            self._log(b"xdel", key, *ids)
        return deleted

    def xack(self, key: bytes, group: bytes, *ids: bytes) -> int:
        stream = self._find(key, Stream)
        if stream is None:
            return 0
        done = sum(stream.acknowledge(group, to_id(word)) for word in ids)
        if done:
            self._log(b"xack", key, group, *ids)
        return done

    def xlen(self, key: bytes) -> int:
        stream = self._find(key, Stream)
        return 0 if stream is None else len(stream.ids)

    def xrange(self, key: bytes, low: bytes, high: bytes, *count: bytes) -> list[Any]:
        return self._range(key, low, high, count, backwards=False)

    def xrevrange(self, key: bytes, high: bytes, low: bytes, *count: bytes) -> list[Any]:
        return self._range(key, low, high, count, backwards=True)

    def _range(
        self, key: bytes, low: bytes, high: bytes, count: Sequence[bytes], *, backwards: bool
    ) -> list[Any]:
        stream = self._find(key, Stream)
        if stream is None:
            return []
        ids = stream.between(low, high)
        if backwards:
            ids = ids[::-1]
        return [stream.entry(entry_id) for entry_id in ids[: int(count[1]) if count else None]]

    def xgroup(self, what: bytes, key: bytes, group: bytes, *words: bytes) -> Any:
        if what.upper() == b"DESTROY":
            stream = self._find(key, Stream)
            gone = stream is not None and stream.groups.pop(group, None) is not None
            if gone:
                self._log(b"xgroup", b"DESTROY", key, group)
            return int(gone)
        assert what.upper() == b"CREATE"
        if self._find(key, Stream) is None and words[-1].upper() != b"MKSTREAM":
            raise ResponseError("ERR The XGROUP subcommand requires the key to exist.")
        stream = self._make(key, Stream)
        if group in stream.groups:
            raise ResponseError("BUSYGROUP Consumer Group name already exists")
        stream.groups[group] = Group(stream.last if words[0] == b"$" else to_id(words[0]))
        self._log(b"xgroup", b"CREATE", key, group, words[0], b"MKSTREAM")
        return "OK"

    def group_stream(self, key: bytes, group: bytes, what: str) -> Stream:
        """The stream that has the group. Raises ResponseError(NOGROUP)."""
        stream: Stream | None = self._find(key, Stream)
        if stream is None or group not in stream.groups:
            raise ResponseError(
                f"NOGROUP No such key '{key.decode()}' or consumer group '{group.decode()}'"
                f" in {what}"
            )
        return stream

    def xreadgroup(self, *words: bytes) -> Any:
        """Without waiting: BLOCK is for whoever asks (network.py)."""
        _, group, consumer = words[:3]
        at = [word.upper() for word in words].index(b"STREAMS")
        options = dict(zip([w.upper() for w in words[3:at:2]], words[4:at:2], strict=False))
        key, start = words[at + 1 :]
        assert start == b">"
        stream = self.group_stream(key, group, "XREADGROUP with GROUP option")
        count = int(options.get(b"COUNT", 10**9))
        entries = stream.read_new(group, consumer, count, self.now_ms)
        if not entries:
            return None
        self._log(
            b"xreadgroup", b"GROUP", group, consumer, b"COUNT", b"%d" % len(entries),
            b"STREAMS", key, b">",
        )  # fmt: skip
        return [[key, entries]]

    def xautoclaim(
        self, key: bytes, group: bytes, consumer: bytes, idle: bytes, start: bytes, *words: bytes
    ) -> list[Any]:
        stream = self.group_stream(key, group, "XAUTOCLAIM")
        count = int(words[1]) if words else 100
        reply = stream.autoclaim(group, consumer, int(idle), to_id(start), count, self.now_ms)
        if reply[1] or reply[2]:
            self._log(b"xautoclaim", key, group, consumer, idle, start, *words)
        return reply

    def xinfo(self, what: bytes, key: bytes) -> list[Any]:
        stream = self._find(key, Stream)
        if stream is None:
            raise ResponseError("ERR no such key")
        assert what.upper() == b"GROUPS"
        return [
            [b"name", name, b"consumers", len(group.consumers), b"pending", len(group.pending),
             b"last-delivered-id", from_id(group.last)]
            for name, group in stream.groups.items()
        ]  # fmt: skip

    def xpending(self, key: bytes, group: bytes) -> list[Any]:
        pending = self.group_stream(key, group, "XPENDING").groups[group].pending
        ids = sorted(pending)
        ends = [from_id(ids[0]), from_id(ids[-1])] if ids else [None, None]
        return [len(ids), *ends, []]


def _cut(items: list[bytes], first: int, last: int) -> list[bytes]:
    """LRANGE's slice: negative numbers count from the end, `last` is included."""
    size = len(items)
    start = max(0, first + size if first < 0 else first)
    stop = (last + size if last < 0 else last) + 1
    return items[start : max(start, stop)]


_NAMES: Final = (
    "ping time info script flushall spublish type exists pexpire expire pexpireat ttl persist get"
    " set hset hsetnx hincrby hget hmget hexists hlen hkeys hvals hgetall hscan hdel rpush ltrim"
    " lpop lrem llen lrange sadd scard smembers xadd xdel xack xlen xrange xrevrange xgroup"
    " xreadgroup xautoclaim xinfo xpending"
)
COMMANDS: Final[dict[str, Callable[..., Any]]] = {
    **{name: getattr(ModelRedis, name) for name in _NAMES.split()},
    "del": ModelRedis.delete,
    "unlink": ModelRedis.delete,
    "config": ModelRedis.config_command,
}
# Commands that Redis refuses when it is out of memory (flag denyoom).
_GROWING: Final = frozenset({"set", "hset", "hsetnx", "hincrby", "rpush", "sadd", "xadd", "xgroup"})
