"""Everything hosts and moderators can do, joined for the composition roots."""

from server.acts.dead_letters import DeadLetterActs
from server.acts.desk import Clock, Desk
from server.acts.moderation import ModerationActs
from server.acts.numbers import NumbersActs
from server.acts.orders import OrderActs
from server.acts.products import ProductActs
from server.acts.projector import Projector
from server.acts.rehearsals import RehearsalActs
from server.acts.sales import SaleActs
from server.acts.shows import ShowActs
from server.acts.webhooks import WebhookActs
from server.records.pool import Pool
from server.store.room import RoomStore
from server.store.stock import Stock
from server.webhooks.send import SystemResolver


class HostActs:
    """The acts by subject. `clock` tells Redis time (server/store/redis_clock.py).

    `webhook_allow_private`: webhooks may go to addresses that are not public.
    """

    def __init__(
        self,
        pool: Pool,
        stock: Stock,
        room_store: RoomStore,
        clock: Clock,
        *,
        webhook_allow_private: bool = False,
    ) -> None:
        self.pool = pool
        self.projector = Projector(pool, stock, room_store)
        desk = Desk(pool, self.projector, clock)
        self.shows = ShowActs(desk, room_store)
        self.products = ProductActs(desk)
        self.sales = SaleActs(desk)
        self.orders = OrderActs(desk)
        self.moderation = ModerationActs(desk, room_store)
        self.webhooks = WebhookActs(desk, SystemResolver(), allow_private=webhook_allow_private)
        self.dead_letters = DeadLetterActs(desk)
        self.rehearsals = RehearsalActs(desk, self.shows, self.products, self.sales)
        self.numbers = NumbersActs(desk, room_store)
        self.desk = desk
