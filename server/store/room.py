"""The room of a show in Redis: snapshot, events, likes, danmaku, presence, chat policy."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from server import limits
from server.domain.presence import PresenceAnswer, PresenceReport
from server.errors import StoreDamaged
from server.protocol.facts import ChatFact, Fact, HeartbeatFact, KickFact
from server.protocol.messages import ChatLine
from server.store import keys, packing
from server.store.client import command, commands
from server.store.scripts import Scripts
from server.store.types import ChatPolicy, PolicyChange, RoomPulse, RoomSnapshot

_MUTE: Final = b"mute:"
_BAN: Final = b"ban:"


class RoomStore:
    """Rooms of every show on one Redis. Every method raises StoreUnavailable (effect unknown)."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    # --- Reading -----------------------------------------------------------------------------

    async def snapshot(self, show_id: str) -> RoomSnapshot | None:
        """One consistent cut; None when Redis does not know the show."""
        names = [keys.meta(show_id), keys.room(show_id), keys.state(show_id), keys.chat(show_id)]
        reply = await self._scripts.run("snapshot", names, ())
        return None if reply is None else _snapshot(reply)

    async def events_after(
        self, show_id: str, epoch: int, seq: int, limit: int
    ) -> list[dict[str, Any]] | None:
        """All events numbered above `seq`, in order; None when that is impossible without a gap
        (another epoch, trimmed away, a number from the future) or when there are over `limit`."""
        names = [keys.room(show_id), keys.events(show_id)]
        reply = await self._scripts.run("events_after", names, (epoch, seq, limit))
        return None if reply is None else [packing.unpack_text(event) for event in reply]

    async def pulse(self, show_id: str) -> RoomPulse | None:
        """The show's numbers, read one after the other; None when Redis does not know the show.
        Raises StoreDamaged also when one of them is no number."""
        gate, room, counts, backlog, oldest = await commands(
            self._scripts.client,
            ("HGET", keys.meta(show_id), "gate"),
            ("HMGET", keys.room(show_id), "online", "likes"),
            ("HGETALL", keys.counts(show_id)),
            ("XLEN", keys.orders(show_id)),
            ("XRANGE", keys.orders(show_id), "-", "+", "COUNT", 1),
        )
        try:
            return None if gate is None else _pulse(gate, room, counts, backlog, oldest)
        except ValueError as error:
            raise StoreDamaged(f"numbers of show {show_id}: {error}") from error

    async def playback_url(self, show_id: str) -> str:
        """Where the show's video is; '' when it has none or Redis does not know the show."""
        packed = await command(self._scripts.client, "HGET", keys.state(show_id), "show")
        return str(packing.unpack_text(packed)["playback_url"]) if packed else ""

    # --- What viewers do ---------------------------------------------------------------------

    async def add_likes(self, show_id: str, hub_id: str, batch_no: int, taps: int) -> int:
        """The show's total after it. Idempotent by (hub_id, batch_no); batch numbers only rise."""
        names = [keys.like_batches(show_id), *_room_keys(show_id)]
        return int(await self._scripts.run("add_likes", names, (hub_id, batch_no, taps)))

    async def publish_chat(self, show_id: str, lines: Sequence[ChatLine], folded: int) -> None:
        """One tick's danmaku of one hub. A repeat publishes again, under the same line ids."""
        fact = msgspec.msgpack.encode(ChatFact(list(lines), folded))
        names = [keys.chat(show_id), keys.bus_channel(show_id)]
        packed = [msgspec.msgpack.encode(line) for line in lines]
        await self._scripts.run("publish_chat", names, (fact, *packed))

    async def report_counts(self, show_id: str, hub_id: str, lines: int, claims: int) -> None:
        """Totals of a hub since it started; the greatest count. Idempotent. Those of a show that
        has ended are forgotten after COUNTS_KEPT_S. Raises StoreUnavailable (effect unknown)."""
        names = [keys.meta(show_id), keys.counts(show_id)]
        await self._scripts.run(
            "report_counts", names, (hub_id, lines, claims, limits.COUNTS_KEPT_S)
        )

    async def report_presence(
        self, show_id: str, hub_id: str, report: PresenceReport, ttl_ms: int
    ) -> PresenceAnswer:
        """Tell who came to a hub and who left. Idempotent by (hub_id, report.number); it counts for
        `ttl_ms`. The number of people is published once no more reports follow."""
        names = [keys.presence(show_id), keys.people(show_id), keys.like_batches(show_id)]
        numbers = (report.number, report.after, report.anonymous, ttl_ms)
        flags = (int(report.more_follow), int(report.may_let_go))
        args = (hub_id, *numbers, *flags, len(report.came), *report.came, *report.left)
        reply = await self._scripts.run("report_presence", [*names, *_room_keys(show_id)], args)
        counts, people, is_unswept = reply
        return PresenceAnswer(bool(counts), people, bool(is_unswept))

    # --- What hosts do -----------------------------------------------------------------------

    async def publish_event(
        self, show_id: str, kind: str, fields: Mapping[str, Any], act_id: str
    ) -> int:
        """Append an event of lane L2; its seq. `kind` is the tag of a messages.Event, `fields`
        the rest of it without seq and at. Idempotent by `act_id`."""
        names = [keys.applied(show_id), *_room_keys(show_id)]
        event = packing.pack({"k": kind, **fields})
        return int(await self._scripts.run("publish_event", names, (f"event:{act_id}", event)))

    async def remove_line(self, show_id: str, line_id: str) -> int:
        """Take a danmaku line back: an event line_removed, its seq. Idempotent."""
        entries = await self._chat_entries(show_id, lambda line: line.id == line_id)
        names = [keys.applied(show_id), keys.chat(show_id), *_room_keys(show_id)]
        args = (f"line:{line_id}", line_id, *entries)
        return int(await self._scripts.run("remove_line", names, args))

    async def kick(self, show_id: str, user: str, code: int) -> None:
        """Ask every hub to close the user's connections with close code `code`. Nothing stays."""
        await self._publish(show_id, KickFact(user, code))

    async def read_policy(self, show_id: str) -> ChatPolicy:
        """The policy in force; all defaults when none was ever written."""
        return _policy(await command(self._scripts.client, "HGETALL", keys.policy(show_id)))

    async def write_policy(
        self, show_id: str, change: PolicyChange, *, announce: bool = True
    ) -> int:
        """The policy's new version. Every hub is told; viewers too when slow mode changed.

        The lines of users that `change` bans disappear, here and (by an event user_removed each,
        if `announce`) from every page. Lines that came after a ban are gone before it ends.
        """
        values, gone = _policy_fields(change)
        slow = "" if change.slow_mode_s is None else change.slow_mode_s
        moved = {*change.ban, *change.unban}
        removed = list(change.ban) if announce else []
        names = [keys.policy(show_id), *_room_keys(show_id), keys.chat(show_id)]
        args = [packing.pack(values), packing.pack(gone), slow, packing.pack(removed)]
        if moved:
            args += await self._chat_entries(show_id, lambda line: line.user in moved)
        return int(await self._scripts.run("write_policy", names, args))

    async def _chat_entries(
        self, show_id: str, is_wanted: Callable[[ChatLine], bool]
    ) -> list[bytes]:
        """The entries of the kept danmaku with these lines, as they are stored. Picked here, for
        cmsgpack cannot read what hubs pack."""
        entries = await command(self._scripts.client, "LRANGE", keys.chat(show_id), 0, -1)
        return [entry for entry in entries if is_wanted(packing.unpack_chat_line(entry))]

    # --- Between hubs ------------------------------------------------------------------------

    async def heartbeat(self, show_id: str, hub_id: str, n: int) -> None:
        """Send number `n` through the show's channel, to be heard by ourselves."""
        await self._publish(show_id, HeartbeatFact(hub_id, n))

    async def _publish(self, show_id: str, fact: Fact) -> None:
        packed = msgspec.msgpack.encode(fact)
        await command(self._scripts.client, "SPUBLISH", keys.bus_channel(show_id), packed)


def _room_keys(show_id: str) -> tuple[str, ...]:
    return (
        keys.state(show_id),
        keys.room(show_id),
        keys.events(show_id),
        keys.bus_channel(show_id),
    )


def _snapshot(reply: list[Any]) -> RoomSnapshot:
    now_ms, epoch, seq, stock_epoch, gate, rebuild, flat, chat = reply
    return RoomSnapshot(
        now_ms=now_ms,
        epoch=int(epoch),
        seq=int(seq),
        stock_epoch=int(stock_epoch),
        gate=gate.decode(),
        rebuild=rebuild.decode(),
        state={
            key.decode(): packing.unpack_text(value)
            for key, value in zip(flat[::2], flat[1::2], strict=True)
        },
        chat=[packing.unpack_chat_line(line) for line in chat],
    )


def _pulse(
    gate: bytes,
    room: Sequence[bytes | None],
    counts: Mapping[bytes, bytes],
    backlog: int,
    oldest: Sequence[tuple[bytes, Any]],
) -> RoomPulse:
    online, likes = (int(value or 0) for value in room)
    return RoomPulse(
        gate=gate.decode(),
        online=online,
        likes=likes,
        lines=_sum_of(counts, b":lines"),
        claims=_sum_of(counts, b":claims"),
        backlog=backlog,
        oldest_at=int(oldest[0][0].partition(b"-")[0]) if oldest else 0,
    )


def _sum_of(counts: Mapping[bytes, bytes], kind: bytes) -> int:
    return sum(int(value) for name, value in counts.items() if name.endswith(kind))


def _policy(fields: Mapping[bytes, bytes]) -> ChatPolicy:
    words = fields.get(b"words")
    return ChatPolicy(
        version=int(fields.get(b"version", 0)),
        slow_mode_s=int(fields.get(b"slow", 0)),
        words=tuple(packing.unpack_text(words)) if words else (),
        muted={
            name.removeprefix(_MUTE).decode(): int(until)
            for name, until in fields.items()
            if name.startswith(_MUTE)
        },
        bans={
            name.removeprefix(_BAN).decode(): int(since)
            for name, since in fields.items()
            if name.startswith(_BAN)
        },
    )


def _policy_fields(change: PolicyChange) -> tuple[list[Any], list[str]]:
    """Flat fields and values to set, and fields to delete."""
    values: list[Any] = []
    if change.slow_mode_s is not None:
        values += ("slow", change.slow_mode_s)
    if change.words is not None:
        values += ("words", packing.pack(list(change.words)))
    for user, until in change.mute.items():
        values += (f"mute:{user}", until)
    for user, since in change.ban.items():
        values += (f"ban:{user}", since)
    gone = [f"mute:{user}" for user in change.unmute] + [f"ban:{user}" for user in change.unban]
    return values, gone
