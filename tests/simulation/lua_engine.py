"""Redis' side of a Lua script: `redis.call`, cmsgpack, KEYS and ARGV, in a Lua 5.1 of our own.

The scripts are the server's files as they are; only what Redis itself provides is made here. One
Lua state serves all model servers of this process, one call at a time.
"""

import hashlib
import struct
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import lupa.lua51
from redis.exceptions import RedisError, ResponseError

Call = Callable[..., Any]  # one command: words as bytes; the reply, or raises ResponseError

_CMSGPACK = Path(__file__).with_name("cmsgpack.lua")


class Engine:
    """A Lua state with what Redis puts into it. `run` is not reentrant, as Redis is not."""

    def __init__(self) -> None:
        self._lua = lupa.lua51.LuaRuntime(encoding=None, unpack_returned_tuples=True)
        self._call: Call = _no_server
        self._globals = self._lua.globals()
        self._functions: dict[bytes, Any] = {}
        self._load = self._lua.eval(b"function(source) return assert(loadstring(source)) end")
        self._type_of = lupa.lua51.lua_type
        self._globals.pack_double = _pack_double
        self._globals.unpack_double = _unpack_double
        self._globals.cmsgpack = self._load(_CMSGPACK.read_bytes())()
        self._globals.redis = self._lua.table_from(
            {b"call": self._redis_call, b"sha1hex": _sha1hex}
        )

    def run(self, source: bytes, keys: Sequence[bytes], argv: Sequence[bytes], call: Call) -> Any:
        """The script's reply as EVALSHA gives it. Raises ResponseError."""
        function = self._functions.get(source)
        if function is None:
            function = self._functions[source] = self._load(source)
        self._call = call
        self._globals.KEYS = self._lua.table_from(keys)
        self._globals.ARGV = self._lua.table_from(argv)
        try:
            return self._to_reply(function())
        except lupa.lua51.LuaError as error:
            raise ResponseError(f"ERR user_script: {error}") from None
        finally:
            self._call = _no_server

    def _redis_call(self, *words: Any) -> Any:
        return self._to_lua(self._call(*map(_to_word, words)))

    def _to_lua(self, reply: Any) -> Any:
        """A reply as scripts see it: nil is false, a status is a table with `ok`."""
        if reply is None:
            return False
        if isinstance(reply, list):
            return self._lua.table_from([self._to_lua(item) for item in reply])
        if isinstance(reply, str):
            return self._lua.table_from({b"ok": reply.encode()})
        return reply

    def _to_reply(self, value: Any) -> Any:
        if value is None or value is False:
            return None
        if value is True:
            return 1
        if isinstance(value, float):
            return int(value)
        if self._type_of(value) == "table":
            return [self._to_reply(item) for item in _until_nil(value)]
        return value


@cache
def engine() -> Engine:
    """The Lua state of this process."""
    return Engine()


def _until_nil(table: Any) -> list[Any]:
    items: list[Any] = []
    while (item := table[len(items) + 1]) is not None:
        items.append(item)
    return items


def _to_word(word: Any) -> bytes:
    if isinstance(word, bytes):
        return word
    if isinstance(word, bool) or not isinstance(word, int | float):
        raise ResponseError("ERR Lua redis lib command arguments must be strings or integers")
    return b"%d" % word if word == int(word) else repr(word).encode()


def _no_server(*_: bytes) -> Any:
    raise RedisError("redis.call outside of a script")


def _sha1hex(text: bytes) -> bytes:
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


def _pack_double(number: float) -> bytes:
    """As cmsgpack: 4 bytes where that loses nothing."""
    try:
        short = struct.pack(">f", number)
    except OverflowError:
        return b"\xcb" + struct.pack(">d", number)
    if struct.unpack(">f", short)[0] == number:
        return b"\xca" + short
    return b"\xcb" + struct.pack(">d", number)


def _unpack_double(packed: bytes) -> float:
    (number,) = struct.unpack(">f" if len(packed) == 4 else ">d", packed)
    return float(number)
