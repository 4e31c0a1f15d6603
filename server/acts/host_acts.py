"""Everything hosts and moderators can do, joined for the composition roots."""

from server.acts.desk import Clock, Desk
from server.acts.moderation import ModerationActs
from server.acts.products import ProductActs
from server.acts.projector import Projector
from server.acts.sales import SaleActs
from server.acts.shows import ShowActs
from server.records.pool import Pool
from server.store.room import RoomStore
from server.store.stock import Stock


class HostActs:
    """The acts by subject. `clock` tells Redis time (server/store/redis_clock.py)."""

    def __init__(self, pool: Pool, stock: Stock, room_store: RoomStore, clock: Clock) -> None:
        self.pool = pool
        self.projector = Projector(pool, stock, room_store)
        desk = Desk(pool, self.projector, clock)
        self.shows = ShowActs(desk, room_store)
        self.products = ProductActs(desk)
        self.sales = SaleActs(desk)
        self.moderation = ModerationActs(desk, room_store)
        self.desk = desk
