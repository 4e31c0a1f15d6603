"""Between processes and the model Redis: delays, lost requests, lost replies, cut connections.

`SimRedis` and `SimPubSub` stand where redis-py's client and its PubSub stand, so that everything in
server/store runs as it is.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis.asyncio as aioredis
from redis._parsers.base import BaseParser
from redis.commands import AsyncCoreCommands
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from tests.simulation.loop import CURRENT, Process, SimLoop
from tests.simulation.model_redis import ModelRedis, Words

BASE_MS: Final = 1_790_000_000_000  # wall time of the servers at virtual time 0
_CALLBACKS: Final = aioredis.Redis(protocol=2).response_callbacks


@dataclass(slots=True)
class Weather:
    """How bad the network is: the probability of each fault per request, the delay in s."""

    lose_request: float = 0.0
    lose_reply: float = 0.0
    slow: float = 0.02
    delay_s: float = 0.0005
    slow_s: float = 0.05


class Network:
    """One generator for all delays and losses. `is_over`: nothing reaches a server any more."""

    def __init__(self, loop: SimLoop) -> None:
        self.loop = loop
        self.rng = loop.rng
        self.weather = Weather()
        self.is_over = False

    def delay(self) -> float:
        """Seconds one way."""
        most = self.weather.delay_s
        if self.rng.random() < self.weather.slow:
            most = self.weather.slow_s
        return self.rng.random() * most

    def happens(self, probability: float) -> bool:
        return probability > 0 and self.rng.random() < probability

    def wall_ms(self) -> int:
        return BASE_MS + int(self.loop.now * 1000)


class _Waiter:
    """A blocked XREADGROUP."""

    def __init__(self, words: Words, process: Process | None, future: "asyncio.Future[Any]"):
        self.words = words
        self.process = process
        self.future = future
        at = [word.upper() for word in words].index(b"STREAMS")
        self.key, self.group = words[at + 1], words[2]


class RedisHost:
    """The model server behind the network."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.loop = network.loop
        self.is_up = True
        self.losses = 0  # how often it forgot what it had written
        self.on_command: Callable[[], None] = _nothing
        self.on_fact: Callable[[bytes], None] = _ignored
        self.skew_ms = 0
        self.model = ModelRedis(lambda: network.wall_ms() + self.skew_ms, self._publish)
        self._open: dict[asyncio.Future[Any], Process | None] = {}
        self._waiters: list[_Waiter] = []
        self._listeners: dict[bytes, dict[SimPubSub, None]] = defaultdict(dict)

    # --- Requests -----------------------------------------------------------------------------

    async def request(self, words: Words) -> Any:
        """Send a command and wait for its reply. Raises redis-py's exceptions."""
        network, loop = self.network, self.loop
        if network.is_over:
            raise RedisConnectionError("the run is over")
        future: asyncio.Future[Any] = loop.create_future()
        self._open[future] = CURRENT.get()
        loop.at(network.delay(), self._arrive, words, future)
        try:
            return await future
        finally:
            self._open.pop(future, None)

    def _arrive(self, words: Words, future: "asyncio.Future[Any]") -> None:
        process = self._open.get(future)
        weather = self.network.weather
        if not self.is_up or self.network.happens(weather.lose_request):
            self._fail(future, "the request was lost")
            return
        try:
            reply: Any = self.model.execute(*words)
        except ResponseError as error:
            reply = BaseParser.parse_error(str(error))
        if reply is None and words[0] == b"XREADGROUP" and b"BLOCK" in words:
            self._wait(words, process, future)
        elif self.network.happens(weather.lose_reply):
            self._fail(future, "the reply was lost")
        else:
            self._answer(future, reply)
        self._serve_waiters()
        if words[0] == b"EVALSHA":
            self.on_command()

    def _answer(self, future: "asyncio.Future[Any]", reply: Any) -> None:
        self.loop.at(self.network.delay(), settle, future, reply)

    def _fail(self, future: "asyncio.Future[Any]", why: str) -> None:
        self.loop.at(self.network.delay(), settle, future, RedisConnectionError(why))

    # --- Blocking reads -----------------------------------------------------------------------

    def _wait(self, words: Words, process: Process | None, future: "asyncio.Future[Any]") -> None:
        waiter = _Waiter(words, process, future)
        self._waiters.append(waiter)
        block_ms = int(words[words.index(b"BLOCK") + 1])
        self.loop.at(block_ms / 1000, self._give_up, waiter)
        # A reader that went away is noticed a little later.
        future.add_done_callback(lambda _: self.loop.at(self.network.delay(), self._leave, waiter))

    def _give_up(self, waiter: _Waiter) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
            self._answer(waiter.future, None)

    def _leave(self, waiter: _Waiter) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def _serve_waiters(self) -> None:
        for waiter in list(self._waiters):
            stream = self.model.data.get(waiter.key)
            group = stream.groups.get(waiter.group) if stream is not None else None
            if group is None or stream.last > group.last:
                self._waiters.remove(waiter)
                try:
                    reply: Any = self.model.execute(*waiter.words)
                except ResponseError as error:
                    reply = BaseParser.parse_error(str(error))
                self._answer(waiter.future, reply)

    # --- Pub/Sub ------------------------------------------------------------------------------

    def listen(self, channel: bytes, listener: "SimPubSub") -> None:
        self._listeners[channel][listener] = None

    def unlisten(self, channel: bytes, listener: "SimPubSub") -> None:
        self._listeners[channel].pop(listener, None)

    def listeners(self, channel: bytes) -> int:
        return len(self._listeners[channel])

    def _publish(self, channel: bytes, payload: bytes) -> int:
        self.on_fact(payload)
        listeners = self._listeners[channel]
        for listener in listeners:
            listener.deliver("smessage", channel, payload)
        return len(listeners)

    # --- Faults -------------------------------------------------------------------------------

    def stop(self) -> None:
        """Down: every connection is cut; what was written stays."""
        self.is_up = False
        self.cut()

    def start(self, lose: int = 0) -> None:
        """Up again, without the last `lose` scripts it had written."""
        self.losses += lose > 0
        self.model.restart(lose)
        self.is_up = True

    def cut(self) -> None:
        """Cut every connection."""
        self._waiters.clear()
        for future in list(self._open):
            self._fail(future, "the connection was cut")
        for listener in {each for group in self._listeners.values() for each in group}:
            listener.cut()
        self._listeners.clear()

    def forget(self, process: Process) -> None:
        """A process died: its connections end."""
        self._waiters = [waiter for waiter in self._waiters if waiter.process is not process]
        for group in self._listeners.values():
            for listener in [each for each in group if each.process is process]:
                del group[listener]


def _nothing() -> None:
    """Nobody watches."""


def _ignored(_: bytes) -> None:
    """Nobody watches."""


def settle(future: "asyncio.Future[Any]", reply: Any) -> None:
    """Give a request its reply, or the exception that it is."""
    if future.done():
        return
    if isinstance(reply, Exception):
        future.set_exception(reply)
    else:
        future.set_result(reply)


class SimRedis(AsyncCoreCommands):
    """redis-py's client, as far as server/store uses it, on a RedisHost."""

    def __init__(self, host: RedisHost) -> None:
        self._host = host

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        words = words_of(args)
        if words[0] == b"PUBSUB":
            return [n for word in words[2:] for n in (word, self._host.listeners(word))]
        return parsed(args[0], await self._host.request(words), options)

    async def aclose(self) -> None:
        """Nothing is held."""


def words_of(args: Sequence[Any]) -> Words:
    """A command as it is sent."""
    first, *rest = map(_word, args)
    return (*first.split(), *rest)  # SCRIPT LOAD, XGROUP CREATE are two words


def parsed(name: Any, reply: Any, options: dict[str, Any]) -> Any:
    """A reply as redis-py gives it."""
    callback = _CALLBACKS.get(name)
    told = {option: value for option, value in options.items() if option != "keys"}
    return callback(reply, **told) if callback else reply


def _word(arg: Any) -> bytes:
    if isinstance(arg, bytes):
        return arg
    return arg.encode() if isinstance(arg, str) else repr(arg).encode()


class SimPubSub:
    """redis-py's PubSub for sharded channels: messages in order, until the connection is cut."""

    def __init__(self, host: RedisHost) -> None:
        self._host = host
        self.process = CURRENT.get()
        self._inbox: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._free_at = 0.0  # messages do not overtake each other
        self._is_cut = False
        self.connection: SimPubSub | None = None

    async def connect(self) -> None:
        if self._host.network.is_over or not self._host.is_up:
            raise RedisConnectionError("refused")
        await asyncio.sleep(self._host.network.delay())
        self.connection = self

    async def ssubscribe(self, *channels: str) -> None:
        self._require_connection()
        for channel in channels:
            self._host.listen(channel.encode(), self)
            self.deliver("ssubscribe", channel.encode(), 1)

    async def sunsubscribe(self, *channels: str) -> None:
        self._require_connection()
        for channel in channels:
            self._host.unlisten(channel.encode(), self)

    def _require_connection(self) -> None:
        if self._is_cut or not self._host.is_up:
            raise RedisConnectionError("the connection was cut")

    def deliver(self, kind: str, channel: bytes, data: Any) -> None:
        loop = self._host.loop
        self._free_at = max(self._free_at, loop.now + self._host.network.delay()) + 1e-7
        message = {"type": kind, "channel": channel, "data": data}
        loop.at(self._free_at - loop.now, self._inbox.put_nowait, message)

    def cut(self) -> None:
        self._is_cut = True
        self._host.loop.at(self._host.network.delay(), self._inbox.put_nowait, None)

    async def get_message(self, **_: Any) -> dict[str, Any]:
        message = await self._inbox.get()
        if message is None:
            raise RedisConnectionError("the connection was cut")
        return message

    async def disconnect(self, nowait: bool = False) -> None:
        self.cut()

    async def aclose(self) -> None:
        for channel in list(self._host._listeners):
            self._host.unlisten(channel, self)
        self.connection = None
