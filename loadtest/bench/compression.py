"""`bench compression`: what permessage-deflate saves in bytes and costs in CPU, in a busy room.

One web process on one core and four shows that are alike, each with 1,000 viewers of one kind:
msgpack or JSON, without compression or with (figures that begin with `deflate`). The shows take
turns in short bursts, so that a busy moment of the machine meets each kind. In a burst a show has
200 danmaku and 200 changes of stock per second, and its likes and its number of people move; ticks
are 100 ms. The cost is that of all the process does meanwhile, over the frames that arrived.

Danmaku are drawn from phrases that people write in such rooms, with numbers, by 5,000 people: what
they say again and again compresses, names do not. `welcome_bytes` is the snapshot that everybody
gets who joins, of a show with PRODUCTS products. Loopback has no bandwidth to run short of: what
fewer bytes are worth on a real link is not in the CPU figures.
"""

import itertools
import random
import tempfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import redis.asyncio

from loadtest import process, wire
from loadtest.bench import fanout, report, swarm
from loadtest.bench.crowd import audience
from loadtest.bench.publishing import epoch_of
from loadtest.stand import Stand, live_show
from server.protocol.facts import ChatFact, StateFact
from server.protocol.messages import (
    SUBPROTOCOL_JSON,
    SUBPROTOCOL_MSGPACK,
    ChatLine,
    Tick,
    Welcome,
)

LINES, STOCK_CHANGES = 200, 200  # per second
SALES, UNITS, PRODUCTS, PEOPLE = 2, 2_000, 12, 5_000
OFFER = "permessage-deflate; client_max_window_bits"  # as most browsers
SMALL_BYTES = 150  # of a tick that may come as it is
WELCOME_SECONDS = 5.0
PHRASES = (
    *("666", "来了来了", "主播好", "多少钱", "有优惠吗", "还有库存吗", "什么时候发货", "包邮吗"),
    *("这个颜色好看", "有没有大码", "尺码怎么选", "身高一米六穿什么码", "能不能再便宜点", "已拍"),
    *("抢到了", "没抢到", "再上一点货吧", "链接在哪里", "上次买的质量很好", "回购第三次了"),
    *("会不会掉色", "什么材质的", "七天无理由吗", "可以开发票吗", "讲一下洗涤方法", "冲冲冲"),
    *("手慢无", "主播试穿一下黑色的", "和上一款有什么区别", "给妈妈买的", "求讲解三号链接"),
)
FAMILIES, GIVEN = "王李张刘陈杨赵黄周吴徐孙", "小大阿晨雨欣浩然子涵梓萱一诺明月星辰"

_DEFLATED_END: Final = b"\x00\x00\xff\xff"  # RFC 7692 section 7.2.2
_READERS: Final[Mapping[str, Callable[[bytes], Tick | Welcome]]] = {
    SUBPROTOCOL_MSGPACK: msgspec.msgpack.Decoder(Tick | Welcome).decode,
    SUBPROTOCOL_JSON: msgspec.json.Decoder(Tick | Welcome).decode,
}


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to watch. `figure` begins the names of its figures."""

    figure: str
    subprotocol: str
    offer: str

    def request(self, running: Stand) -> bytes:
        """The handshake of such a viewer of the show that was opened last."""
        host = f"127.0.0.1:{running.port}"
        return wire.upgrade_request(host, f"/ws/{running.show_id}", self.subprotocol, self.offer)


KINDS = (
    Kind("", SUBPROTOCOL_MSGPACK, ""),
    Kind("deflate", SUBPROTOCOL_MSGPACK, OFFER),
    Kind("json", SUBPROTOCOL_JSON, ""),
    Kind("deflate_json", SUBPROTOCOL_JSON, OFFER),
)


async def run(*, quick: bool) -> report.Result:
    """All kinds side by side, in turns."""
    plan = fanout.Plan(20, 1, 4, 10) if quick else fanout.Plan(1_000, 5, 30, 10)
    figures: dict[str, float] = {}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="livesale-bench-")))
        show = live_show(LIVESALE_TICK_MS="100", LIVESALE_COMPRESSION="true")
        running = await stack.enter_async_context(show)
        targets = []
        for kind in KINDS:
            watching = _watching(running, plan, kind, folder)
            targets.append(await stack.enter_async_context(watching))
            prefix = f"{kind.figure}_" if kind.figure else ""
            figures[f"{prefix}welcome_bytes"] = await _welcome_bytes(running, kind)
        figures = await fanout.compare(plan, targets, quick=quick) | figures
    setting: dict[str, object] = {"viewers": plan.viewers, "frames_per_s": plan.per_second}
    setting |= {"danmaku_per_s": LINES, "stock_changes_per_s": STOCK_CHANGES}
    return report.Result(figures, [], setting | {"products": PRODUCTS, "rounds": plan.rounds})


@asynccontextmanager
async def _watching(
    running: Stand, plan: fanout.Plan, kind: Kind, folder: Path
) -> AsyncIterator[fanout.Target]:
    """A show of its own with viewers of one kind."""
    assert running.web is not None
    await running.open_show()
    for number in range(PRODUCTS):
        await running.call("POST", f"/api/shows/{running.show_id}/products", _product(number))
    sales = [await running.open_sale(UNITS, 1) for _ in range(SALES)]
    request = kind.request(running)
    async with (
        audience(running.port, request, folder, plan.viewers, plan.sampled) as viewers,
        redis.asyncio.Redis.from_url(running.valkey.url) as client,
    ):
        news = News(running, client, await epoch_of(running), sales, plan.per_second)
        for viewer in viewers.sampled[: fanout.CHECKED]:
            viewer.check = Readable(kind)
        yield fanout.Target(kind.figure, running.web.pid, viewers, news, exact=False)


def _product(number: int) -> dict[str, object]:
    skus = [
        {"title": f"{colour} {size}", "price": 9_900 + number, "inventory": 1_000}
        for colour, size in itertools.product(("米白", "雾霾蓝", "炭黑"), "SML")
    ]
    return {"title": f"重磅纯棉短袖 第 {number + 1} 款", "skus": skus}


async def _welcome_bytes(running: Stand, kind: Kind) -> float:
    """Size on the wire of the snapshot that one more viewer gets."""
    [viewer] = await swarm.connect(running.port, [kind.request(running)], swarm.Receiver)
    try:
        await process.wait_for(lambda: viewer.frames > 0, WELCOME_SECONDS, "a welcome")
        return viewer.size
    finally:
        await swarm.hang_up([viewer])


class Readable:
    """Checks that ticks have news in them, and are deflated where that was asked for: all but small
    ones."""

    def __init__(self, kind: Kind) -> None:
        self._read = _READERS[kind.subprotocol]
        self._deflated = bool(kind.offer)

    def __call__(self, payload: bytes) -> None:
        try:
            tick = self._read(payload)
        except msgspec.DecodeError:
            tick = self._read(zlib.decompressobj(-15).decompress(payload + _DEFLATED_END))
        else:
            if self._deflated and len(payload) > SMALL_BYTES:
                raise RuntimeError(f"a tick of {len(payload)} bytes that is not deflated")
        if not tick.state:
            raise RuntimeError("a tick without news")


class News:
    """Publishes what happens in a busy room during one tick, through Redis as the scripts do."""

    def __init__(
        self,
        running: Stand,
        client: "redis.asyncio.Redis",
        epoch: int,
        sales: list[int],
        ticks_per_s: int,
    ) -> None:
        self._channel = running.bus_channel
        self._client = client
        self._epoch = epoch
        self._sales = itertools.cycle(sales)
        self._stock_changes = STOCK_CHANGES // ticks_per_s
        self._lines = LINES // ticks_per_s
        self._versions = itertools.count(1_000)
        self._chance = random.Random(1)

    async def __call__(self) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for fact in self._facts():
            pipeline.spublish(self._channel, msgspec.msgpack.encode(fact))
        await pipeline.execute()

    def _facts(self) -> Iterator[StateFact | ChatFact]:
        for _ in range(self._stock_changes):
            yield self._stock(next(self._sales))
        yield self._total("likes", "total", 50_000)
        yield self._total("online", "people", 1_000)
        yield ChatFact([self._line() for _ in range(self._lines)])

    def _stock(self, sale: int) -> StateFact:
        version = next(self._versions)
        sold = version % UNITS
        value = {"epoch": 1, "version": version, "sale": sale, "left": UNITS - sold, "held": 0}
        return StateFact(f"stock:{sale}", value | {"sold": sold, "total": UNITS})

    def _total(self, key: str, field: str, base: int) -> StateFact:
        version = next(self._versions)
        return StateFact(key, {"epoch": self._epoch, "version": version, field: base + version})

    def _line(self) -> ChatLine:
        chance = self._chance
        number = chance.randrange(PEOPLE)
        who = random.Random(number)
        name = who.choice(FAMILIES) + "".join(who.choices(GIVEN, k=2)) + str(who.randrange(100))
        text = chance.choice(PHRASES) + chance.choice(("", "", "！", "？", "~", str(number)))
        return ChatLine(f"4f1c-{next(self._versions)}", f"u{number:08}", name, "viewer", text)
