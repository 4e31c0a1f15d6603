"""What each command does, without sockets or servers."""

from typing import Any, cast

import pytest

from server import clock, limits
from server.config import Settings
from server.domain.identity import Identity
from server.hub.claims import ClaimDesk
from server.hub.order_status import OrderStatusDesk
from server.hub.ports import ClockPort
from server.hub.room import Room
from server.hub.viewer import Viewer
from server.protocol import messages as m
from server.store.types import ChatPolicy, ClaimRequest
from server.web import auth
from server.web.commands import BAD_TOKENS_MAX, COMMANDS, PACE_KEPT_MS, Commands
from server.web.crew import Crew
from server.web.policies import Policies, RoomRules
from tests.hub_fakes import FakeRoom, FakeViewer

SECRET = "s" * 32
CLAIM_ID = "01890a5d-ac96-774b-bcce-b302099a8057"


class FakeClaims:
    """Where claims and questions go."""

    def __init__(self) -> None:
        self.submitted: list[tuple[int, ClaimRequest, int]] = []
        self.asked: list[tuple[int, str, str]] = []

    def of(self, room: object) -> "FakeClaims":
        return self

    def submit(self, viewer: object, ref: int, request: ClaimRequest) -> None:
        self.submitted.append((ref, request, request.attempt))

    def resubmit(self, viewer: object, ref: int, request: ClaimRequest, hold: m.ClaimState) -> None:
        self.submitted.append((ref, request, request.attempt))

    def ask(self, viewer: object, ref: int, buyer: str, claim_id: str) -> None:
        self.asked.append((ref, buyer, claim_id))


class FakePolicies:
    def __init__(self) -> None:
        self.rules = RoomRules(ChatPolicy())

    def set(self, **policy: Any) -> None:
        self.rules = RoomRules(ChatPolicy(**policy))

    def of(self, room: object) -> RoomRules:
        return self.rules


class FakeCrew:
    def role_in(self, show_id: str, identity: Identity) -> str:
        return identity.role


class FakeClock:
    def now_ms(self) -> int:
        return 1_700_000_000_000


class Stage:
    def __init__(self, **settings: Any) -> None:
        self.claims = FakeClaims()
        self.policies = FakePolicies()
        self.room = FakeRoom()
        self.commands = Commands(
            settings=Settings(secret=SECRET, **settings),
            clock_port=cast(ClockPort, FakeClock()),
            claims=cast(ClaimDesk, self.claims),
            statuses=cast(OrderStatusDesk, self.claims),
            policies=cast(Policies, self.policies),
            crew=cast(Crew, FakeCrew()),
        )

    def do(self, viewer: FakeViewer, command: m.Command) -> None:
        self.commands.dispatch(cast(Viewer, viewer), command)

    def viewer(self, user: str | None = "u1", role: str = "viewer") -> FakeViewer:
        viewer = FakeViewer(self.room, user)
        viewer.role = role
        return viewer

    def token(self, user: str = "u1", role: str = "viewer", **more: Any) -> str:
        return auth.issue(SECRET.encode(), user=user, role=role, show="show1", **more)


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def time_ms(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_000_000.0]
    monkeypatch.setattr(clock, "monotonic_ms", lambda: now[0])
    return now


def names(viewer: FakeViewer) -> list[str]:
    return [name for _, name in viewer.refused]


def test_table_when_read_then_it_has_every_command() -> None:
    assert set(COMMANDS) == set(m.COMMANDS)


# --- hello ------------------------------------------------------------------------------------


def test_hello_when_the_token_is_good_then_the_viewer_is_signed_in(stage: Stage) -> None:
    viewer = stage.viewer(None)
    stage.do(viewer, m.Hello(token=stage.token(name="小明"), ref=3))
    assert (viewer.user, viewer.name) == ("u1", "小明")
    assert viewer.sent[0].ref == 3
    assert viewer.sent[0].hello.user == "u1"
    assert stage.room.viewers_of("u1") == (viewer,)


def test_hello_when_it_has_no_ref_then_it_works_without_a_word(stage: Stage) -> None:
    viewer = stage.viewer(None)
    stage.do(viewer, m.Hello(token=stage.token()))
    assert viewer.user == "u1"
    assert viewer.sent == []


def test_hello_when_the_user_is_banned_then_refused_and_removed(stage: Stage) -> None:
    stage.policies.set(bans={"u1": 7})
    viewer = stage.viewer(None)
    stage.do(viewer, m.Hello(token=stage.token(), ref=1))
    assert names(viewer) == ["banned"]
    assert viewer.closed == [4403]
    assert viewer.user is None


async def test_hello_when_bad_tokens_repeat_then_the_connection_ends(stage: Stage) -> None:
    import asyncio

    viewer = stage.viewer(None)
    for ref in range(BAD_TOKENS_MAX):
        stage.do(viewer, m.Hello(token="nonsense", ref=ref))
    await asyncio.sleep(0)
    assert names(viewer) == ["token_invalid"] * BAD_TOKENS_MAX
    assert viewer.closed == [4401]


def test_hello_when_it_comes_too_often_then_it_is_limited(
    stage: Stage, time_ms: list[float]
) -> None:
    viewer = stage.viewer(None)
    for ref in range(6):
        stage.do(viewer, m.Hello(token=stage.token(), ref=ref))
    assert names(viewer) == ["rate_limited"]


# --- chat -------------------------------------------------------------------------------------


def chat(stage: Stage, viewer: FakeViewer, text: str = "hi", ref: int | None = 1) -> None:
    stage.do(viewer, m.Chat(text=text, ref=ref))


def test_chat_when_it_is_fine_then_it_is_said_and_told_with_its_id(stage: Stage) -> None:
    viewer = stage.viewer()
    chat(stage, viewer, "  真 好看 ")
    line = stage.room.said[0]
    assert (line.user, line.text) == ("u1", "真 好看")
    assert viewer.sent[0].chat == m.ChatResult(line.id, "真 好看")


def test_chat_when_it_has_a_refused_word_then_it_is_told_and_not_said(stage: Stage) -> None:
    stage.policies.set(words=("加微信",))
    viewer = stage.viewer()
    chat(stage, viewer, "加 微\u200b信")
    assert names(viewer) == ["word_refused"]
    assert stage.room.said == []


def test_chat_when_the_user_is_muted_then_until_the_time_is_over(stage: Stage) -> None:
    viewer = stage.viewer()
    stage.policies.set(muted={"u1": 1_700_000_000_001})
    chat(stage, viewer)
    stage.policies.set(muted={"u1": 1_700_000_000_000})
    chat(stage, viewer)
    assert names(viewer) == ["muted"]
    assert len(stage.room.said) == 1


def test_chat_when_slow_mode_is_on_then_one_line_per_interval_and_user(
    stage: Stage, time_ms: list[float]
) -> None:
    stage.policies.set(slow_mode_s=10)
    first, second = stage.viewer(), stage.viewer()
    chat(stage, first)
    time_ms[0] += 4_000
    chat(stage, second)  # another connection of the same user
    assert names(second) == ["slow_mode"]
    assert second.details[0]["retry_ms"] == 6_000
    time_ms[0] += 6_000
    chat(stage, second)
    assert len(stage.room.said) == 2


@pytest.mark.parametrize("role", ["host", "moderator"])
def test_chat_when_the_crew_speaks_then_slow_mode_does_not_bind(stage: Stage, role: str) -> None:
    stage.policies.set(slow_mode_s=10)
    viewer = stage.viewer("h", role)
    chat(stage, viewer)
    chat(stage, viewer)
    assert len(stage.room.said) == 2
    assert stage.room.said[0].role == role


def test_chat_when_it_is_too_fast_then_rate_limited_with_a_time(
    time_ms: list[float],
) -> None:
    stage = Stage(chat_per_10s=2)
    viewer = stage.viewer()
    for ref in range(3):
        chat(stage, viewer, ref=ref)
    assert viewer.refused == [(2, "rate_limited")]
    assert viewer.details[0]["retry_ms"] == 5_000
    time_ms[0] += 5_000
    chat(stage, viewer)
    assert len(stage.room.said) == 3


def test_chat_when_the_show_has_ended_then_it_is_refused(stage: Stage) -> None:
    stage.room.state["show"] = {"phase": "ended"}
    viewer = stage.viewer()
    chat(stage, viewer)
    stage.do(viewer, m.Like(ref=2))
    assert names(viewer) == ["show_ended", "show_ended"]


def test_chat_when_it_is_refused_then_the_slow_mode_does_not_begin(
    stage: Stage, time_ms: list[float]
) -> None:
    stage.policies.set(slow_mode_s=10, words=("bad",))
    viewer = stage.viewer()
    chat(stage, viewer, "bad")
    chat(stage, viewer, "good")
    assert names(viewer) == ["word_refused"]
    assert len(stage.room.said) == 1


# --- like -------------------------------------------------------------------------------------


def test_like_when_taps_exceed_the_rate_then_those_within_count(time_ms: list[float]) -> None:
    stage = Stage(like_taps_per_second=5)
    viewer = stage.viewer()
    stage.do(viewer, m.Like(taps=100))
    assert stage.room.taps == 10
    stage.do(viewer, m.Like(taps=100, ref=2))
    assert viewer.refused == [(2, "rate_limited")]
    time_ms[0] += 1_000
    stage.do(viewer, m.Like(taps=3, ref=3))
    assert stage.room.taps == 13
    assert [reply.ref for reply in viewer.sent] == [3]


# --- claim, order_status, time ----------------------------------------------------------------


def claim(ref: int = 1, **fields: Any) -> m.Claim:
    values = {"sale": 5, "claim_id": CLAIM_ID, "quantity": 2, "price_version": 3, **fields}
    return m.Claim(ref=ref, **values)


def test_claim_when_the_sale_is_known_then_it_goes_to_the_batcher(stage: Stage) -> None:
    stage.room.state["sale:5"] = {}
    stage.do(stage.viewer(), claim(attempt=2))
    raw = bytes.fromhex(CLAIM_ID.replace("-", ""))
    assert stage.claims.submitted == [(1, ClaimRequest("u1", raw, 5, 2, 3, 2), 2)]


def test_claim_when_it_proves_a_hold_then_it_is_a_repeat_whatever_it_says(stage: Stage) -> None:
    stage.room.state["sale:5"] = {}
    proof = m.Proof("9f2c", 1, 7, 990)
    stage.do(stage.viewer(), claim(1, proof=proof))
    stage.do(stage.viewer(), claim(2, proof=proof, attempt=3))
    assert [request.attempt for _, request, _ in stage.claims.submitted] == [1, 3]


def test_claim_when_the_sale_is_unknown_here_then_only_a_repeat_goes_on(stage: Stage) -> None:
    viewer = stage.viewer()
    stage.do(viewer, claim())
    stage.do(viewer, claim(2, attempt=1))
    assert viewer.refused == [(1, "unknown_sale")]
    assert len(stage.claims.submitted) == 1


def test_claim_when_it_is_asked_again_then_it_is_counted_once(stage: Stage) -> None:
    stage.room.state["sale:5"] = {}
    for attempt in range(3):
        stage.do(stage.viewer(), claim(attempt=attempt))
    stage.do(stage.viewer(), claim(proof=m.Proof("9f2c", 1, 7, 990)))
    stage.room.state.clear()
    stage.do(stage.viewer(), claim())  # refused: there is no such sale
    assert stage.room.counts.claims == 1


def test_claim_when_they_come_too_fast_then_rate_limited(time_ms: list[float]) -> None:
    stage = Stage(claims_per_second=1)
    stage.room.state["sale:5"] = {}
    viewer = stage.viewer()
    for ref in range(3):
        stage.do(viewer, claim(ref))
    assert viewer.refused == [(2, "rate_limited")]


def test_order_status_when_asked_then_it_is_about_the_own_claim(stage: Stage) -> None:
    stage.do(stage.viewer(), m.OrderStatus(ref=4, claim_id=CLAIM_ID))
    assert stage.claims.asked == [(4, "u1", CLAIM_ID)]


def test_time_when_asked_then_redis_time_and_the_question_come_back(stage: Stage) -> None:
    viewer = stage.viewer(None)
    stage.do(viewer, m.Time(ref=1, sent_at=12.5))
    assert viewer.sent[0].time == m.TimeResult(12.5, 1_700_000_000_000)


@pytest.mark.parametrize(
    "command",
    [m.Chat("x", 1), m.Like(1, 1), claim(), m.OrderStatus(1, CLAIM_ID)],
    ids=["chat", "like", "claim", "order_status"],
)
def test_command_when_the_token_is_missing_or_old_then_it_is_told(
    stage: Stage, command: m.Command
) -> None:
    stage.room.state["sale:5"] = {}
    anonymous, expired = stage.viewer(None), stage.viewer()
    expired.expires_at_ms = clock.now_ms()
    for viewer in (anonymous, expired):
        stage.do(viewer, command)
    assert names(anonymous) == ["token_required"]
    assert names(expired) == ["token_expired"]


def test_paces_when_their_users_are_long_gone_then_they_are_forgotten(
    stage: Stage, time_ms: list[float]
) -> None:
    viewer = stage.viewer()
    chat(stage, viewer)
    pace = stage.commands.pace_of(cast(Viewer, viewer), "u1")
    stage.commands.forget_idle_paces(time_ms[0] + PACE_KEPT_MS)
    assert stage.commands.pace_of(cast(Viewer, stage.viewer()), "u1") is pace
    stage.commands.forget_idle_paces(time_ms[0] + PACE_KEPT_MS + 1)
    assert stage.commands.pace_of(cast(Viewer, stage.viewer()), "u1") is not pace
    assert PACE_KEPT_MS > 1_000 * limits.SLOW_MODE_S_MAX


def test_room_when_faked_then_it_is_what_handlers_use() -> None:
    for name in ("sign_in", "say", "add_likes", "next_chat_id", "viewers_of", "state"):
        assert hasattr(Room, name), name
