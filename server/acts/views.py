"""What the host API answers. Money in minor units, times in ms since 1970, 0: not set.

`pending`: PostgreSQL has it, Redis (and so the viewers) not yet; it gets there by itself.
"""

from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from server.records.acts import ActRow
from server.records.dead_letters import Letter
from server.records.order_life import MoveRow, OrderPayment
from server.records.order_list import OrderRow
from server.records.products import ProductRow, SkuRow
from server.records.sales import SaleMoney, SaleRow
from server.records.shows import ShowRow
from server.records.webhooks import DeliveryRow, EndpointRow


class PublicShow(Struct, frozen=True):
    """What everybody may know of a show."""

    show: str
    title: str
    cover_url: str
    playback_url: str
    starts_at: int
    status: str


class ShowView(PublicShow, frozen=True):
    """A show as its host sees it."""

    host: str
    pinned_product: int
    slow_mode_s: int
    created_at: int
    started_at: int
    ended_at: int
    pending: bool


class CreatedShow(ShowView, frozen=True):
    """A new show and a host token for it alone."""

    host_token: str


class SkuDetail(Struct, frozen=True):
    """`allotted` of the `inventory` belong to sales, sold units included."""

    sku: int
    title: str
    price: int
    currency: str
    inventory: int
    allotted: int


class ProductDetail(Struct, frozen=True):
    """`listed`: on the run-list, in the order of `position`. `cues`: what its host means to say,
    for hosts and moderators only."""

    product: int
    title: str
    image_url: str
    position: int
    listed: bool
    skus: list[SkuDetail]
    cues: list[str]


class SaleView(Struct, frozen=True):
    """A sale and its units by PostgreSQL's books.

    total = initial + restocked - lowered; of these `reserved` wait for payment and `sold` are
    sold. `lowering` units were asked back and not yet decided.
    """

    sale: int
    status: str
    sku: int
    sku_title: str
    product: int
    product_title: str
    price: int
    list_price: int
    currency: str
    price_version: int
    limit_per_buyer: int
    countdown_s: int
    duration_s: int
    pay_within_s: int
    opens_at: int
    closes_at: int
    initial: int
    restocked: int
    lowered: int
    reserved: int
    sold: int
    dead: int
    lowering: int
    pending: bool


class UnitsChanged(Struct, frozen=True):
    """A restock or lowering that is done; the same for every repeat of the request."""

    request_id: str
    sale: int
    kind: str
    units: int
    outcome: str


class Said(Struct, frozen=True):
    """The number of the commentary among the show's events."""

    seq: int


class ChatPolicyView(Struct, frozen=True):
    """`muted` users with the time it ends; `banned` users."""

    slow_mode_s: int
    words: list[str]
    muted: dict[str, int]
    banned: list[str]
    pending: bool


class ActView(Struct, frozen=True):
    """A line of the audit log. `outcome` of restocks and lowerings: pending, done or refused."""

    act: str
    at: int
    actor: str
    role: str
    action: str
    detail: dict[str, Any]
    outcome: str


class SaleStats(Struct, frozen=True):
    """Books of one sale: its units, and the orders that stand (`amount` in minor units)."""

    sale: int
    status: str
    currency: str
    total: int
    left: int
    reserved: int
    sold: int
    dead: int
    orders: int
    units: int
    amount: int


class OrderView(Struct, frozen=True):
    """One order; `price` is that of one unit."""

    order_id: int
    sale: int
    product: int
    product_title: str
    sku: int
    sku_title: str
    buyer: str
    claim_id: str
    quantity: int
    price: int
    currency: str
    status: str
    confirmed_at: int
    pay_by: int


class OrderStep(Struct, frozen=True):
    """One step of an order. `reason`: deadline, buyer, host, payment, retake (paid late, its units
    were taken again) or redrive (confirmed out of a dead letter, `status_from` is `dead`).
    `actor`: the user, or the payment's provider; may be empty."""

    status_from: str
    status_to: str
    reason: str
    actor: str
    at: int


class OrderPaymentView(Struct, frozen=True):
    """A payment that was begun for an order. `reason`: why its money goes back."""

    payment: str
    provider: str
    status: str
    amount: int
    currency: str
    reason: str
    created_at: int


class OrderDetail(OrderView, frozen=True):
    """An order with every step after its confirmation and its payments, oldest first."""

    moves: list[OrderStep]
    payments: list[OrderPaymentView]


class WebhookView(Struct, frozen=True):
    """An endpoint. `pending` and `failed` deliveries; `removed_by`: a user, or `gone` when the
    target answered 410."""

    webhook: int
    url: str
    topics: list[str]
    created_at: int
    removed_at: int
    removed_by: str
    pending: int
    failed: int


class CreatedWebhook(WebhookView, frozen=True):
    """A new endpoint with the secret that its messages are signed with; shown this once."""

    secret: str


class DeliveryView(Struct, frozen=True):
    """A message for an endpoint. `webhook_id` is what the receiver sees, the same each time.

    `next_at`: of the next attempt; `http_status` 0: nobody answered, `last_error` says why.
    """

    delivery: int
    webhook_id: str
    topic: str
    at: int
    status: str
    attempts: int
    http_status: int
    last_error: str
    next_at: int
    updated_at: int


class Resent(Struct, frozen=True):
    """How many deliveries are due again. One that is being sent at this moment is not counted."""

    deliveries: int


class DeadLetterView(Struct, frozen=True):
    """A take that could not be booked, and why. `units` count as dead in its sale while `parked`.

    `content`: the take, with its `kind` by name; of an entry of the order stream that cannot be
    read (sale 0) its fields. Bytes that are no text are in hex.
    """

    dead_letter: int
    sale: int
    epoch: int
    seq: int
    entry: str
    units: int
    error: str
    status: str
    at: int
    content: dict[str, Any]


class ShowList(Struct, frozen=True):
    shows: list[ShowView]


class ProductList(Struct, frozen=True):
    products: list[ProductDetail]


class SaleList(Struct, frozen=True):
    sales: list[SaleView]


class StatsList(Struct, frozen=True):
    sales: list[SaleStats]


class OrderList(Struct, frozen=True):
    orders: list[OrderView]


class WebhookList(Struct, frozen=True):
    webhooks: list[WebhookView]


class DeliveryList(Struct, frozen=True):
    deliveries: list[DeliveryView]


class DeadLetterList(Struct, frozen=True):
    dead_letters: list[DeadLetterView]


class ActList(Struct, frozen=True):
    acts: list[ActView]


def public_show(row: ShowRow) -> PublicShow:
    return PublicShow(
        row.show_id, row.title, row.cover_url, row.playback_url, row.starts_at, row.status
    )


def show_view(row: ShowRow) -> ShowView:
    return ShowView(
        show=row.show_id,
        title=row.title,
        cover_url=row.cover_url,
        playback_url=row.playback_url,
        starts_at=row.starts_at,
        status=row.status,
        host=row.host_id,
        pinned_product=row.pinned_product,
        slow_mode_s=row.slow_mode_s,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        pending=row.revision > row.applied_revision,
    )


def sku_detail(row: SkuRow) -> SkuDetail:
    return SkuDetail(row.sku_id, row.title, row.price, row.currency, row.inventory, row.allotted)


def product_details(products: list[ProductRow], skus: list[SkuRow]) -> list[ProductDetail]:
    """Products with their skus, in the order of `products`."""
    mine: dict[int, list[SkuDetail]] = {row.product_id: [] for row in products}
    for sku in skus:
        mine[sku.product_id].append(sku_detail(sku))
    return [
        ProductDetail(
            p.product_id, p.title, p.image_url, p.position, p.listed, mine[p.product_id], p.cues
        )
        for p in products
    ]


def sale_view(row: SaleRow) -> SaleView:
    return SaleView(
        sale=row.sale_id,
        status=row.status,
        sku=row.sku_id,
        sku_title=row.sku_title,
        product=row.product_id,
        product_title=row.product_title,
        price=row.price,
        list_price=row.list_price,
        currency=row.currency,
        price_version=row.price_version,
        limit_per_buyer=row.limit_per_buyer,
        countdown_s=row.countdown_s,
        duration_s=row.duration_s,
        pay_within_s=row.pay_within_s,
        opens_at=row.opens_at_ms,
        closes_at=row.closes_at_ms,
        initial=row.initial,
        restocked=row.restocked,
        lowered=row.lowered,
        reserved=row.reserved,
        sold=row.sold,
        dead=row.dead,
        lowering=row.lowering,
        pending=row.status != "draft" and row.revision > row.applied_revision,
    )


def act_view(row: ActRow) -> ActView:
    return ActView(
        str(row.act_id), row.at, row.actor, row.role, row.action, row.detail, row.outcome
    )


def sale_stats(row: SaleRow, money: SaleMoney) -> SaleStats:
    total = row.initial + row.restocked - row.lowered
    return SaleStats(
        sale=row.sale_id,
        status=row.status,
        currency=row.currency,
        total=total,
        left=total - row.reserved - row.sold - row.dead,
        reserved=row.reserved,
        sold=row.sold,
        dead=row.dead,
        orders=money.orders,
        units=money.units,
        amount=money.amount,
    )


def order_view(row: OrderRow) -> OrderView:
    return OrderView(
        order_id=row.order_id,
        sale=row.sale_id,
        product=row.product_id,
        product_title=row.product,
        sku=row.sku_id,
        sku_title=row.sku,
        buyer=row.buyer,
        claim_id=row.claim_id,
        quantity=row.quantity,
        price=row.price,
        currency=row.currency,
        status=row.status,
        confirmed_at=row.confirmed_at,
        pay_by=row.pay_by,
    )


def order_detail(row: OrderRow, moves: list[MoveRow], payments: list[OrderPayment]) -> OrderDetail:
    """An order with its history."""
    return OrderDetail(
        **asdict(order_view(row)),
        moves=[OrderStep(*move) for move in moves],
        payments=[OrderPaymentView(str(payment.payment_id), *payment[1:]) for payment in payments],
    )


def webhook_view(row: EndpointRow) -> WebhookView:
    return WebhookView(*row)


def delivery_view(row: DeliveryRow) -> DeliveryView:
    return DeliveryView(*row)


def dead_letter_view(letter: Letter) -> DeadLetterView:
    return DeadLetterView(
        dead_letter=letter.dead_letter_id,
        sale=letter.pool_id,
        epoch=letter.epoch,
        seq=letter.seq,
        entry=letter.entry_id,
        units=letter.units,
        error=letter.error,
        status=letter.status,
        at=letter.at_ms,
        content=letter.content(),
    )
