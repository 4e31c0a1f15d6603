"""The Lua scripts: read from lua/, run by their hash, loaded again when Redis forgot them.

A script is one file; `-- include: _name` lines bring in shared functions, `CODE.name` and
`LIMIT.NAME` become the numbers of server/errors.py and server/limits.py, so that no number is
written twice.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import redis.asyncio as aioredis
from redis.exceptions import NoScriptError

from server import limits
from server.errors import ERRORS, StoreUnavailable
from server.store.client import command, commands


class Script(NamedTuple):
    """`source` as Redis gets it, and its SHA-1 (Redis' name for it, not a signature)."""

    source: str
    sha: str


_LUA = files("server.store") / "lua"


def names() -> list[str]:
    """Names of all scripts; files that start with _ are parts of others."""
    found = (file.name for file in _LUA.iterdir() if file.name.endswith(".lua"))
    return sorted(name[:-4] for name in found if not name.startswith("_"))


def _read(name: str) -> str:
    return (_LUA / f"{name}.lua").read_text(encoding="utf-8")


@cache
def load(name: str) -> Script:
    """The script lua/<name>.lua, ready to run. KeyError or AttributeError: an unknown number."""
    source = re.sub(r"(?m)^-- include: (_\w+)$", lambda line: _read(line[1]), _read(name))
    source = re.sub(r"\bCODE\.(\w+)\b", lambda word: str(ERRORS[word[1]].code), source)
    source = re.sub(r"\bLIMIT\.(\w+)\b", lambda word: str(getattr(limits, word[1])), source)
    sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(source, sha)


class Scripts:
    """Runs scripts on one server (in a Cluster: on the node of the first key)."""

    def __init__(self, client: "aioredis.Redis") -> None:
        self.client = client

    async def preload(self) -> None:
        """Load every script, so that the first claim does not pay for it."""
        for name in names():
            await command(self.client, "SCRIPT LOAD", load(name).source)

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """The raw reply. Raises StoreUnavailable: whether the script ran is unknown.

        Every script may be run again with the same arguments. An error raised by a script itself
        (CORRUPT, WRONGTYPE, OOM, ...) comes before its first write.
        """
        script = load(name)
        call = ("EVALSHA", script.sha, len(keys), *keys, *args)
        try:
            return await command(self.client, *call)
        except StoreUnavailable as error:
            _raise_unless_forgotten(name, error)
        await command(self.client, "SCRIPT LOAD", script.source)
        return await command(self.client, *call)

    async def run_with(
        self, name: str, keys: Sequence[str], args: Sequence[Any], *after: Sequence[Any]
    ) -> list[Any]:
        """As `run`, followed by the commands `after` on the same connection: all raw replies."""
        script = load(name)
        calls = (("EVALSHA", script.sha, len(keys), *keys, *args), *after)
        try:
            return await commands(self.client, *calls)
        except StoreUnavailable as error:
            _raise_unless_forgotten(name, error)
        await command(self.client, "SCRIPT LOAD", script.source)
        return await commands(self.client, *calls)

    async def run_many(
        self, name: str, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]
    ) -> list[Any]:
        """As `run` for the keys and arguments of each call, all in one round trip. Others may come
        between two of them. Raises StoreUnavailable when one failed; any may have run."""
        if len(calls) == 1:
            return [await self.run(name, *calls[0])]
        script = load(name)
        words = [("EVALSHA", script.sha, len(keys), *keys, *args) for keys, args in calls]
        try:
            return await commands(self.client, *words)
        except StoreUnavailable as error:
            _raise_unless_forgotten(name, error)
        await command(self.client, "SCRIPT LOAD", script.source)
        return await commands(self.client, *words)


def _raise_unless_forgotten(name: str, error: StoreUnavailable) -> None:
    """Return when Redis does not know the script (any more): nothing ran, load it and repeat."""
    if not isinstance(error.__cause__, NoScriptError):
        raise type(error)(f"{name}: {error}") from error.__cause__
