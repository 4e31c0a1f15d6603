"""Acts on a show itself: making, editing, its life, the pinned product, commentary, its books."""

from typing import Final
from uuid import UUID

from server import clock
from server.acts.desk import Act, Desk, request_act_id
from server.acts.messages import (
    ActsQuery,
    CreateShow,
    EditShow,
    Say,
    asked_fields,
    changed_fields,
)
from server.acts.stopping import stop_all
from server.acts.views import (
    ActView,
    PublicShow,
    Said,
    ShowView,
    act_view,
    public_show,
    show_view,
)
from server.domain.identity import Identity, require_moderator, require_show_maker
from server.domain.rehearsal import is_shadow
from server.domain.show import ShowAct, next_status
from server.errors import Refused, StoreUnavailable
from server.records import acts, products, shows
from server.records.pool import acquire
from server.records.shows import ShowRow
from server.records.transaction import transaction
from server.store.room import RoomStore

SHOWS_LISTED = 100  # the newest of a host
_MADE_ID_CHARS: Final = 16  # of a show's id that follows from a request's


class ShowActs:
    """Errors: Refused by rule, RecordsUnavailable (whether it was committed is unknown)."""

    def __init__(self, desk: Desk, room_store: RoomStore) -> None:
        self._desk = desk
        self._room_store = room_store

    async def create(
        self, identity: Identity, body: CreateShow, show_id: str | None = None
    ) -> ShowView:
        """A new scheduled show; one, however often the same request of this host comes.

        With a `request_id` the show's id follows from it, so that repeats meet at one row. Raises
        Refused(forbidden|conflict: the id is taken, or the request_id asked for something else).
        """
        require_show_maker(identity)
        act_id = _making_id(identity.user, body.request_id)
        if show_id is None:
            show_id = act_id.hex[:_MADE_ID_CHARS] if body.request_id else clock.new_short_id()
        asked = asked_fields(body)
        async with transaction(self._desk.pool) as conn:
            is_new = await shows.insert_show(conn, show_id, identity.user, **asked)
            row = await shows.lock_show(conn, show_id)
            assert row is not None  # inserted above, now or before
            act = Act(conn, row, identity)
            if is_new:
                await act.note("create_show", asked, act_id)
            elif await act.repeated(act_id, "create_show", asked) is None:
                raise Refused("conflict", "The show id is taken")
        return await self._applied(show_id)

    async def edit(self, identity: Identity, show_id: str, body: EditShow) -> ShowView:
        """Title, cover, playback URL, schedule."""
        changes = changed_fields(body)
        async with self._desk.act(identity, show_id) as act:
            show = act.show._replace(**changes)
            if show != act.show:
                terms = (show.title, show.cover_url, show.playback_url, show.starts_at)
                await shows.update_show(act.conn, show_id, *terms)
                await act.note("edit_show", changes)
        return await self._applied(show_id)

    async def move(self, identity: Identity, show_id: str, what: ShowAct) -> ShowView:
        """Start, pause, resume or end. A repeat changes nothing and is answered the same.

        Ending stops every sale: drafts give their units back at once, the others close.
        """
        stopped: list[int] = []
        async with self._desk.act(identity, show_id, ended=True) as act:
            status = next_status(act.show.status, what)
            if status != act.show.status:
                await shows.set_status(act.conn, show_id, status)
                stopped = await stop_all(act) if what == "end" else []
                await act.note(what, {"sales": stopped} if stopped else {})
        view = await self._applied(show_id)
        for sale_id in stopped:
            await self._desk.apply(self._desk.projector.project_sale(sale_id))
        return view

    async def pin(self, identity: Identity, show_id: str, product_id: int) -> ShowView:
        """`product_id` is being explained (讲解中); 0: nothing. Raises Refused(not_found)."""
        async with self._desk.act(identity, show_id, require_moderator) as act:
            if product_id and not await products.get_product(act.conn, show_id, product_id):
                raise Refused("not_found", "No such product", field="product")
            if product_id != act.show.pinned_product:
                await shows.set_pin(act.conn, show_id, product_id)
                await act.note("pin", {"product": product_id})
        return await self._applied(show_id)

    async def say(self, identity: Identity, show_id: str, body: Say) -> Said:
        """Written commentary; one event, however often the same request comes.

        Raises Refused(outcome_unknown) when Redis does not answer: it is on record, and the same
        request_id sends it again.
        """
        act_id = request_act_id(show_id, 0, body.request_id)
        detail = {"text": body.text}
        async with self._desk.act(identity, show_id) as act:
            if await act.repeated(act_id, "commentary", detail) is None:
                await act.note("commentary", detail, act_id)
        return await self._publish(show_id, act_id, detail)

    async def _publish(self, show_id: str, act_id: UUID, detail: dict[str, str]) -> Said:
        try:
            seq = await self._room_store.publish_event(show_id, "commentary", detail, str(act_id))
        except StoreUnavailable:
            raise Refused(
                "outcome_unknown", "Recorded, but perhaps not said: repeat the same request_id"
            ) from None
        return Said(seq)

    # --- Reading ------------------------------------------------------------------------------

    async def get(self, identity: Identity, show_id: str) -> ShowView | PublicShow:
        """All of it for its host and moderators, else what everybody may know: of a shadow show
        nothing."""
        row = await self._row(show_id)
        try:
            require_moderator(identity, show_id, row.host_id)
        except Refused:
            if is_shadow(show_id):
                raise Refused("not_found", "No such show") from None
            return public_show(row)
        return show_view(row)

    async def details(self, identity: Identity, show_id: str) -> ShowView:
        """All of it, for its host and moderators only. Raises Refused(not_found|forbidden)."""
        async with self._desk.reading(identity, show_id, require_moderator) as act:
            return show_view(act.show)

    async def list_own(self, identity: Identity) -> list[ShowView]:
        """The newest shows of this host that the token covers."""
        if identity.role != "host":
            raise Refused("forbidden", "Only hosts have shows")
        async with acquire(self._desk.pool) as conn:
            rows = await shows.list_shows(conn, identity.user, SHOWS_LISTED)
        return [show_view(row) for row in rows if identity.covers(row.show_id)]

    async def list_acts(self, identity: Identity, show_id: str, query: ActsQuery) -> list[ActView]:
        """The audit log, newest first."""
        async with self._desk.reading(identity, show_id) as act:
            rows = await acts.list_acts(act.conn, show_id, query.before, query.limit)
        return [act_view(row) for row in rows]

    async def _applied(self, show_id: str) -> ShowView:
        """Bring the show to Redis if it can be done now, and show how it stands."""
        await self._desk.apply(self._desk.projector.project_show(show_id))
        return show_view(await self._row(show_id))

    async def _row(self, show_id: str) -> ShowRow:
        async with acquire(self._desk.pool) as conn:
            row = await shows.get_show(conn, show_id)
        if row is None:
            raise Refused("not_found", "No such show")
        return row


def _making_id(user: str, request_id: UUID | None) -> UUID:
    """The act id of making a show: the host's own. No show's id has a slash."""
    return request_act_id(f"show/{user}", 0, request_id)
