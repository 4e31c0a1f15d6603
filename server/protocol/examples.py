"""One example of every message: PROTOCOL.md is rendered from them (server/reference.py)."""

from typing import Final

from msgspec import Struct

from server.errors import ERRORS
from server.protocol import messages as m

_CLAIM_ID: Final = "0199c5e2-7b3c-7c11-9e2a-1b2c3d4e5f60"
_NOW: Final = 1_790_000_000_000

_HELD: Final = m.ClaimState(
    claim_id=_CLAIM_ID, status="held", sale=7, quantity=1, price=9900, price_version=1,
    epoch=1, seq=42, receipt="AQdIc2U...",
)  # fmt: skip
_CONFIRMED: Final = m.ClaimState(
    claim_id=_CLAIM_ID, status="confirmed", sale=7, quantity=1, price=9900, price_version=1,
    epoch=1, seq=42, order_id=1001,
)  # fmt: skip
_SOLD_OUT: Final = ERRORS["sold_out"]

COMMAND_EXAMPLES: Final[tuple[Struct, ...]] = (
    m.Hello(ref=1, token="eyJhbGciOiJIUzI1NiIs..."),  # noqa: S106
    m.Chat(ref=2, text="主播,蓝色的还有吗?"),
    m.Like(taps=5),
    m.Claim(ref=3, sale=7, claim_id=_CLAIM_ID, quantity=1, price_version=1),
    m.Claim(
        ref=4,
        sale=7,
        claim_id=_CLAIM_ID,
        quantity=1,
        price_version=1,
        attempt=1,
        proof=m.Proof(receipt="9f2c4be1d07a43518c6e2ab1f05d7c34", epoch=1, seq=42, price=9900),
    ),
    m.OrderStatus(ref=4, claim_id=_CLAIM_ID),
    m.Time(ref=5, sent_at=1234.5),
)

STATE_EXAMPLES: Final[dict[str, Struct]] = {
    "show": m.ShowState(
        epoch=1_790_000_000, version=3, phase="live", title="周五好物秒杀夜",
        cover_url="/demo/cover.svg", playback_url="", starts_at=0,
    ),
    "pin": m.PinState(epoch=1_790_000_000, version=3, product=11),
    "runlist": m.RunListState(
        epoch=1_790_000_000, version=3,
        products=[m.ProductView(
            product=11, title="手冲咖啡壶", image_url="/demo/kettle.svg",
            skus=[m.SkuView(sku=21, title="600 ml 黑色", price=12900, currency="CNY")],
        )],
    ),
    "likes": m.LikesState(epoch=1_790_000_000, version=1280, total=1280),
    "online": m.OnlineState(epoch=1_790_000_000, version=56, people=873),
    "room": m.RoomState(epoch=1_790_000_000, version=3, slow_mode_s=0),
    "sale:7": m.SaleState(
        epoch=1, version=2, sale=7, sku=21, product=11, phase="open", price=9900, list_price=12900,
        currency="CNY", price_version=1, limit_per_buyer=1, opens_at=_NOW + 10_000,
        closes_at=_NOW + 310_000, pay_within_s=0,
    ),
    "stock:7": m.StockState(epoch=1, version=43, sale=7, left=8, held=2, sold=40, total=50),
}  # fmt: skip

EVENT_EXAMPLES: Final[tuple[Struct, ...]] = (
    m.Commentary(seq=17, at=_NOW, text="下一件:手冲咖啡壶,五十把,秒杀价 99"),
    m.Pinned(seq=18, at=_NOW, product=11),
    m.ShowPhaseChanged(seq=19, at=_NOW, phase="live"),
    m.SalePhaseChanged(seq=20, at=_NOW, sale=7, what="sold_out"),
    m.UserRemoved(seq=21, at=_NOW, user="u-42"),
    m.LineRemoved(seq=22, at=_NOW, line="k3x9-17"),
)

_LINE: Final = m.ChatLine(id="k3x9-17", user="u-7", name="小林", role="viewer", text="冲!")

SERVER_EXAMPLES: Final[tuple[Struct, ...]] = (
    m.Welcome(
        version=m.PROTOCOL_VERSION, show="demo", epoch=1_790_000_000, seq=17, now=_NOW, tick_ms=100,
        recovered=False, state={"stock:7": STATE_EXAMPLES["stock:7"]}, chat=[_LINE],
    ),
    m.Tick(
        n=1204, now=_NOW, state={"stock:7": STATE_EXAMPLES["stock:7"]}, epoch=1_790_000_000,
        events=[m.SalePhaseChanged(seq=18, at=_NOW, sale=7, what="opening")], chat=[_LINE],
        folded=12,
    ),
    m.Accepted(
        ref=1,
        hello=m.HelloResult(user="u-7", name="小林", role="viewer", expires_at=_NOW + 900_000),
    ),
    m.Accepted(ref=2, chat=m.ChatResult(id="k3x9-17", text="冲!")),
    m.Accepted(ref=3, claim=_HELD),
    m.Accepted(ref=4, order=_CONFIRMED),
    m.Accepted(ref=5, time=m.TimeResult(sent_at=1234.5, now=_NOW)),
    m.RefusedReply(
        ref=3, code=_SOLD_OUT.code, name=_SOLD_OUT.name, retryable=_SOLD_OUT.retryable,
        retry_ms=_SOLD_OUT.retry_ms, zh=_SOLD_OUT.zh, en=_SOLD_OUT.en,
    ),
    m.OrderEvent(order=_CONFIRMED),
    m.Bye(code=1012, name="restart", reconnect=True, retry_ms=2_300),
)  # fmt: skip
