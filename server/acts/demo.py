"""The demo show of `livesale up`: live, with three products to sell and one sale prepared."""

from dataclasses import dataclass
from typing import Final

from server import clock
from server.acts.host_acts import HostActs
from server.acts.messages import CreateProduct, CreateSale, CreateShow, CreateSku
from server.config import Settings
from server.domain.identity import EVERY_SHOW, Identity
from server.errors import Refused
from server.records.pool import open_pool
from server.store.client import RedisClients
from server.store.redis_clock import RedisClock
from server.store.room import RoomStore
from server.store.scripts import Scripts
from server.store.stock import Stock

DEMO_SHOW: Final = "demo"
DEMO_HOST: Final = "demo-host"
_DAY_MS: Final = 24 * 3600 * 1000

_SHOW: Final = CreateShow(title="周五好物秒杀夜", cover_url="/demo/cover.svg")
_PRODUCTS: Final = (
    CreateProduct(
        title="手冲咖啡壶",
        image_url="/demo/kettle.svg",
        skus=[
            CreateSku(title="600 ml 黑色", price=12900, inventory=200),
            CreateSku(title="600 ml 白色", price=12900, inventory=200),
        ],
        cues=[
            "细口壶嘴，水流稳，新手也能一圈一圈冲得匀。",
            "304 不锈钢，手柄不烫手，600 毫升刚好两杯。",
            "今晚只在直播间有这个价，开抢前先选好颜色。",
        ],
    ),
    CreateProduct(
        title="云南小粒咖啡豆",
        image_url="/demo/beans.svg",
        skus=[CreateSku(title="250 g 中度烘焙", price=5900, inventory=1000)],
        cues=["云南保山，海拔 1500 米，上周刚烘的。", "坚果和焦糖香，不酸，配牛奶也好喝。"],
    ),
    CreateProduct(
        title="手工陶瓷杯",
        image_url="/demo/cup.svg",
        skus=[CreateSku(title="300 ml 青釉", price=7900, inventory=300)],
        cues=["每一只都是手拉坯，釉色会有一点点不同。", "可以进洗碗机，不要直接上明火。"],
    ),
)


@dataclass(frozen=True, slots=True)
class DemoShow:
    """The demo show and who its host is."""

    show_id: str
    host_id: str


async def seed(settings: Settings) -> DemoShow:
    """Make what is missing of the demo show; what is there stays as it is.

    The tables must be there. A demo show that was ended is followed by a new one (demo2, ...).
    Raises StoreUnavailable, RecordsUnavailable, Misconfigured.
    """
    clients = await RedisClients.open(settings.redis_url)
    try:
        pool = await open_pool(settings.database_url, size=2)
        try:
            scripts = Scripts(clients.commands)
            redis_clock = RedisClock(clients.commands)
            await redis_clock.refresh()
            acts = HostActs(pool, Stock(scripts), RoomStore(scripts), redis_clock)
            return await _seed(acts)
        finally:
            await pool.close()
    finally:
        await clients.aclose()


async def _seed(acts: HostActs) -> DemoShow:
    host = Identity(DEMO_HOST, "主播小夏", "host", EVERY_SHOW, clock.now_ms() + _DAY_MS)
    show_id = await _running_show(acts, host)
    if not await acts.products.list_all(host, show_id):
        for product in _PRODUCTS:
            await acts.products.create(host, show_id, product)
    if not await acts.sales.list_all(host, show_id):
        await _prepare_sale(acts, host, show_id)
    if (await acts.shows.details(host, show_id)).status == "scheduled":
        await acts.shows.move(host, show_id, "start")
    return DemoShow(show_id, DEMO_HOST)


async def _running_show(acts: HostActs, host: Identity) -> str:
    """The id of the first demo show of ours that has not ended; made when there is none."""
    show_id, number = DEMO_SHOW, 1
    while True:
        try:
            if (await acts.shows.details(host, show_id)).status != "ended":
                return show_id
        except Refused as refusal:
            if refusal.error.name == "not_found":
                return (await acts.shows.create(host, _SHOW, show_id)).show
        number += 1
        show_id = f"{DEMO_SHOW}{number}"


async def _prepare_sale(acts: HostActs, host: Identity, show_id: str) -> None:
    """A draft: the host starts it on the console."""
    products = await acts.products.list_all(host, show_id)
    sale = CreateSale(
        sku=products[0].skus[0].sku,
        price=9900,
        units=50,
        limit_per_buyer=1,
        countdown_s=10,
        duration_s=300,
    )
    await acts.sales.create(host, show_id, sale)
    await acts.shows.pin(host, show_id, products[0].product)
