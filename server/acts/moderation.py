"""Acts that keep order in the room: mute, ban, kick, delete a line, slow mode, refused words.

Mutes and bans are rows; the show's revision covers them, so the projector brings the whole policy
to Redis and every hub hears of it; the lines of a banned user disappear with that. Kicks reach only
connections that are open now, and lines are not rows: both are done at once or asked for again.
"""

from collections.abc import Awaitable, Mapping
from typing import Any, Final

from server.acts.desk import Act, Desk
from server.acts.messages import Mute, OneLine, SetChatPolicy
from server.acts.views import ChatPolicyView
from server.domain.identity import Identity, require_moderator
from server.errors import CLOSES, Refused, StoreUnavailable
from server.records import moderation, shows
from server.store.room import RoomStore

REMOVED: Final = CLOSES["removed"].code


class ModerationActs:
    """Hosts and moderators of the show. Errors: Refused by rule, RecordsUnavailable."""

    def __init__(self, desk: Desk, room_store: RoomStore) -> None:
        self._desk = desk
        self._room_store = room_store

    async def policy(self, identity: Identity, show_id: str) -> ChatPolicyView:
        """Slow mode, refused words, who is muted and banned."""
        now = self._desk.clock.now_ms()
        async with self._desk.reading(identity, show_id, require_moderator) as act:
            rows = await moderation.list_all(act.conn, show_id)
        return ChatPolicyView(
            slow_mode_s=act.show.slow_mode_s,
            words=act.show.refused_words,
            muted={r.user: r.until for r in rows if r.kind == "mute" and r.until > now},
            banned=[r.user for r in rows if r.kind == "ban"],
            pending=act.show.revision > act.show.applied_revision,
        )

    async def set_policy(
        self, identity: Identity, show_id: str, body: SetChatPolicy
    ) -> ChatPolicyView:
        """Seconds between two lines of one viewer, and the refused words (duplicates merged)."""
        words = list(dict.fromkeys(body.words))
        async with self._desk.act(identity, show_id, require_moderator) as act:
            if (act.show.slow_mode_s, act.show.refused_words) != (body.slow_mode_s, words):
                await shows.set_chat_rules(act.conn, show_id, body.slow_mode_s, words)
                detail = {"slow_mode_s": body.slow_mode_s, "words": words}
                await act.note("set_chat_policy", detail)
        return await self._applied(identity, show_id)

    async def mute(self, identity: Identity, show_id: str, body: Mute) -> ChatPolicyView:
        """No chat for `seconds` from now on; a further mute replaces an earlier one."""
        until = self._desk.clock.now_ms() + body.seconds * 1000
        async with self._desk.act(identity, show_id, require_moderator) as act:
            _require_other(act, body.user)
            await moderation.put(act.conn, show_id, body.user, "mute", identity.user, until)
            await self._changed(act, "mute", {"user": body.user, "seconds": body.seconds})
        return await self._applied(identity, show_id)

    async def unmute(self, identity: Identity, show_id: str, user: str) -> ChatPolicyView:
        async with self._desk.act(identity, show_id, require_moderator) as act:
            await moderation.remove(act.conn, show_id, user, "mute")
            await self._changed(act, "unmute", {"user": user})
        return await self._applied(identity, show_id)

    async def ban(self, identity: Identity, show_id: str, user: str) -> ChatPolicyView:
        """No chat, likes or claims any more; connections close, the user's lines disappear."""
        async with self._desk.act(identity, show_id, require_moderator) as act:
            _require_other(act, user)
            await moderation.put(act.conn, show_id, user, "ban", identity.user, 0)
            await self._changed(act, "ban", {"user": user})
        view = await self._applied(identity, show_id)
        await self._desk.apply(self._room_store.kick(show_id, user, REMOVED))
        return view

    async def unban(self, identity: Identity, show_id: str, user: str) -> ChatPolicyView:
        async with self._desk.act(identity, show_id, require_moderator) as act:
            await moderation.remove(act.conn, show_id, user, "ban")
            await self._changed(act, "unban", {"user": user})
        return await self._applied(identity, show_id)

    async def kick(self, identity: Identity, show_id: str, user: str) -> None:
        """Close the user's connections; they may come back.

        Raises Refused(outcome_unknown) when Redis does not answer.
        """
        async with self._desk.act(identity, show_id, require_moderator) as act:
            _require_other(act, user)
            await act.note("kick", {"user": user})
        await _done_now(self._room_store.kick(show_id, user, REMOVED))

    async def delete_line(self, identity: Identity, show_id: str, body: OneLine) -> None:
        """A danmaku line disappears from every page, and joiners never get it; harmless to repeat.

        Raises Refused(outcome_unknown) when Redis does not answer.
        """
        async with self._desk.act(identity, show_id, require_moderator) as act:
            await act.note("delete_line", {"line": body.line})
        await _done_now(self._room_store.remove_line(show_id, body.line))

    async def _changed(self, act: Act, action: str, detail: Mapping[str, Any]) -> None:
        await shows.raise_revision(act.conn, act.show.show_id)
        await act.note(action, detail)

    async def _applied(self, identity: Identity, show_id: str) -> ChatPolicyView:
        await self._desk.apply(self._desk.projector.project_show(show_id))
        return await self.policy(identity, show_id)


async def _done_now(work: Awaitable[object]) -> None:
    """Do in Redis what is recorded but kept by no row. Raises Refused(outcome_unknown)."""
    try:
        await work
    except StoreUnavailable:
        raise Refused("outcome_unknown", "Recorded, but perhaps not done") from None


def _require_other(act: Act, user: str) -> None:
    """Nobody silences the show's host, or themselves. Raises Refused(forbidden)."""
    if user in (act.show.host_id, act.identity.user):
        raise Refused("forbidden", "Not the host of the show, nor oneself", field="user")
