"""Snapshot + frames == a fresh snapshot, for every viewer, whatever happens in between.

Random interleavings of joins, resumes, facts (also late, repeated and lost ones), edges, phases,
pauses, leaves and heals; the Screen asserts on every frame that nothing is missed, repeated or
stepped back. Lines that are deleted, or whose author is banned, are gone for all, joiners too.
"""

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server import limits
from server.hub.board import Board
from server.hub.hub import Hub
from server.hub.room import Room
from server.hub.viewer import Viewer
from server.protocol.facts import ChatFact, Fact
from tests.hub_world import SHOW, FakeTransport, Screen, World, connect, new_hub

NEVER = (2**53, 0)
KEYS = ("stock:1", "stock:2", "sale:1", "pin", "likes")


class Seat:
    """One viewer with its client."""

    def __init__(self, viewer: Viewer, transport: FakeTransport) -> None:
        self.viewer = viewer
        self.transport = transport
        self.screen = Screen()

    def look(self) -> None:
        self.screen.show(self.transport.take_messages())


class RoomMachine(RuleBasedStateMachine):
    """The bus may delay, repeat and drop facts; `heal` is what the feed does after a gap."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.world = World(history_max=40)
        self.seats: list[Seat] = []
        self.on_the_way: list[Fact] = []
        self.runner.run(self._set_up())

    async def _set_up(self) -> None:
        self.hub: Hub
        self.hub, _ = new_hub(self.world)
        self.hub.heal = lambda room: None  # type: ignore[method-assign]  # only when the rule says so
        self.world.happen()
        self.world.set("stock:1", left=9)
        self.room: Room = Room(SHOW, self.hub, Board(self.world.cut(), list(self.world.events)))

    def teardown(self) -> None:
        try:
            self._show_everybody_the_truth()
        finally:
            self.hub.ticker.stop()
            self.hub.wheel.stop()
            self.runner.close()

    def _show_everybody_the_truth(self) -> None:
        """At the end, everybody who reads sees what is."""
        self.on_the_way.clear()
        self.the_feed_heals(0)
        for seat in self.seats:
            seat.transport.unstick()
        self.all_groups_are_flushed()
        for seat in self.seats:
            seat.look()
            assert_same(seat.screen, self.room.board)
            assert (seat.screen.epoch, seat.screen.seq) == (self.world.epoch, self.world.seq)
            assert seat.screen.state == self.world.state

    # --- The world changes ---

    @rule(key=st.sampled_from(KEYS), left=st.integers(0, 99))
    def change_state(self, key: str, left: int) -> None:
        self.on_the_way.append(self.world.set(key, left=left))

    @rule(count=st.integers(1, 60))
    def events_happen(self, count: int) -> None:
        for _ in range(count):
            self.on_the_way.append(self.world.happen())

    @rule(count=st.integers(1, 10), folded=st.integers(0, 3))
    def people_chat(self, count: int, folded: int) -> None:
        self.on_the_way.append(self.world.chatter(count, folded))

    @precondition(lambda self: self.world.chat)
    @rule(data=st.data())
    def a_line_is_deleted(self, data: st.DataObject) -> None:
        line = data.draw(st.sampled_from(self.world.chat[-20:]))
        self.on_the_way.append(self.world.take_line_back(line.id))

    @rule(user=st.sampled_from(["u0", "u1", "u2"]))
    def somebody_is_banned(self, user: str) -> None:
        self.on_the_way.append(self.world.ban(user))

    @precondition(lambda self: self.world.banned)
    @rule()
    def the_banned_may_return(self) -> None:
        self.all_facts_arrive()
        self.world.banned.clear()

    @rule()
    def redis_loses_its_events(self) -> None:
        self.on_the_way.clear()
        self.world.epoch += 1
        self.world.seq = 0
        self.world.events.clear()
        for key in ("pin", "likes"):
            self.world.set(key, left=0)

    # --- Facts travel ---

    @rule(data=st.data())
    def a_fact_arrives(self, data: st.DataObject) -> None:
        if self.on_the_way:
            at = data.draw(st.integers(0, min(3, len(self.on_the_way) - 1)))
            self.room.offer(self.on_the_way.pop(at))

    @rule()
    def all_facts_arrive(self) -> None:
        while self.on_the_way:
            self.room.offer(self.on_the_way.pop(0))

    @rule(data=st.data())
    def a_fact_is_repeated(self, data: st.DataObject) -> None:
        if self.on_the_way:
            self.room.offer(data.draw(st.sampled_from(self.on_the_way[:4])))

    @rule()
    def facts_are_lost(self) -> None:
        self.on_the_way.clear()

    @rule(late=st.integers(0, 5))
    def the_feed_heals(self, late: int) -> None:
        snapshot, seq_before = self.world.cut(), self.room.seq
        for _ in range(late):  # facts that overtake the snapshot's answer
            if self.on_the_way:
                self.room.offer(self.on_the_way.pop(0))
        board = self.room.board
        if board.heal(snapshot, seq_before):
            events = self.runner.run(
                self.world.events_after(SHOW, board.epoch, board.seq, limits.HISTORY_EVENTS_MAX)
            )
            for event in events or ():
                board.add_event(self.world.epoch, event)
            if events is None:  # what was deleted so many events ago is not on its way any more
                self._forget_chat_on_the_way()
            board.jump(snapshot)
        self.room.changed()

    def _forget_chat_on_the_way(self) -> None:
        self.on_the_way = [fact for fact in self.on_the_way if not isinstance(fact, ChatFact)]

    # --- Viewers ---

    @rule()
    def a_viewer_joins(self) -> None:
        self.seats.append(Seat(*connect(self.room)))

    @precondition(lambda self: self.seats)
    @rule(data=st.data())
    def a_viewer_reconnects_with_its_resume_point(self, data: st.DataObject) -> None:
        seat = data.draw(st.sampled_from(self.seats))
        seat.transport.unstick()
        seat.look()
        seat.viewer.connection_lost(None)
        viewer, transport = connect(self.room, resume=(seat.screen.epoch, seat.screen.seq))
        seat.viewer, seat.transport = viewer, transport

    @precondition(lambda self: self.seats)
    @rule(data=st.data())
    def a_viewer_leaves(self, data: st.DataObject) -> None:
        seat = data.draw(st.sampled_from(self.seats))
        seat.viewer.connection_lost(None)
        self.seats.remove(seat)

    @precondition(lambda self: self.seats)
    @rule(data=st.data())
    def a_viewer_stops_reading(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.seats)).transport.stuck = True

    @precondition(lambda self: self.seats)
    @rule(data=st.data())
    def a_viewer_reads_again(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.seats)).transport.unstick()

    # --- Time passes ---

    @rule(data=st.data())
    def one_group_is_flushed(self, data: st.DataObject) -> None:
        groups = [group for groups in self.room._groups.values() for group in groups]
        if groups:
            data.draw(st.sampled_from(groups)).flush()

    @rule()
    def all_groups_are_flushed(self) -> None:
        for groups in self.room._groups.values():
            for group in groups:
                group.flush()

    @rule()
    def the_next_tick_begins(self) -> None:
        self.room._welcomes_tick = -1

    # --- What must hold ---

    @invariant()
    def frames_keep_their_promises_and_readers_see_the_board(self) -> None:
        """Screen asserts on every frame; who is current at the board's position sees the board."""
        board = self.room.board
        for seat in self.seats:
            seat.look()
            group = seat.viewer.group
            assert group is not None
            if seat.viewer in group.current and group.position == board.position:
                assert_same(seat.screen, board)

    @invariant()
    def nobody_sees_a_line_once_it_was_taken_back(self) -> None:
        """Not by what was on the way still, and not by joining."""
        for seat in self.seats:
            seen = (seat.screen.epoch, seat.screen.seq)
            for line_id in seat.screen.lines:
                assert self.world.taken_back.get(line_id, NEVER) > seen

    @invariant()
    def the_board_is_never_ahead_of_the_world(self) -> None:
        board = self.room.board
        if board.epoch == self.world.epoch:
            assert board.seq <= self.world.seq


def assert_same(screen: Screen, board: Board) -> None:
    assert (screen.epoch, screen.seq) == (board.epoch, board.seq)
    shown: dict[str, Any] = {key: screen.state.get(key) for key in board.state}
    assert shown == board.state


RoomMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
TestRoom = RoomMachine.TestCase
