"""What each command of a viewer does. `COMMANDS` is the table; one plain function per command.

A handler runs inside the read callback of the connection: it never awaits. What needs Redis is
handed to a desk that batches (claims, order status) or to the room's tick (likes, chat). A
handler refuses by raising Refused; everything else it raises is our fault and answered `internal`.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from msgspec import UNSET

from server import clock
from server.config import Settings
from server.domain.chat import clean_chat
from server.domain.rate_limit import BucketRule, TokenBucket
from server.errors import Refused
from server.hub.claims import ClaimDesk
from server.hub.order_status import OrderStatusDesk
from server.hub.ports import ClockPort
from server.hub.room import Room
from server.hub.viewer import Viewer
from server.limits import SLOW_MODE_S_MAX
from server.protocol.messages import (
    Accepted,
    Chat,
    ChatLine,
    ChatResult,
    Claim,
    ClaimState,
    Command,
    Hello,
    HelloResult,
    Like,
    OrderStatus,
    Proof,
    Time,
    TimeResult,
)
from server.store.types import ClaimRequest
from server.telemetry import metrics
from server.web import auth
from server.web.crew import Crew
from server.web.policies import Policies

log = structlog.get_logger()

BANNED_CLOSE: Final = 4403
TOKEN_CLOSE: Final = 4401
BAD_TOKENS_MAX: Final = 3  # refused tokens on one connection before close 4401
HELLO_RULE: Final = BucketRule(per_second=0.5, burst=5)  # a token costs 30 µs to check
PACE_KEPT_MS: Final = 2 * 1_000 * SLOW_MODE_S_MAX  # an idle pace has no influence after that
_CREW: Final = ("host", "moderator")  # not bound by slow mode and mutes


class Pace:
    """How fast one user goes in one room, all their connections of this hub together.

    Buckets are made when they are first needed: most viewers only watch.
    """

    __slots__ = ("chat", "claims", "last_line_ms", "likes", "seen_ms")

    def __init__(self) -> None:
        self.chat: TokenBucket | None = None
        self.likes: TokenBucket | None = None
        self.claims: TokenBucket | None = None
        self.last_line_ms = float("-inf")
        self.seen_ms = 0.0


class Budget:
    """What one connection has used up: its hellos, and its user's pace once there is one."""

    __slots__ = ("bad_tokens", "hellos", "pace")

    def __init__(self) -> None:
        self.bad_tokens = 0
        self.hellos: TokenBucket | None = None
        self.pace: Pace | None = None


def budget_of(viewer: Viewer) -> Budget:
    """The budget of a connection, made with its first command that needs one."""
    budget = viewer.budget
    if budget is None:
        budget = viewer.budget = Budget()
    assert isinstance(budget, Budget)
    return budget


class Rules:
    """The rates of server/config.py as buckets."""

    def __init__(self, settings: Settings) -> None:
        self.chat = BucketRule(settings.chat_per_10s / 10, settings.chat_per_10s)
        self.likes = BucketRule(settings.like_taps_per_second, 2 * settings.like_taps_per_second)
        self.claims = BucketRule(settings.claims_per_second, 2 * settings.claims_per_second)


class Commands:
    """Carries out commands: `dispatch` is what the hub's rooms are given."""

    def __init__(
        self,
        *,
        settings: Settings,
        clock_port: ClockPort,
        claims: ClaimDesk,
        statuses: OrderStatusDesk,
        policies: Policies,
        crew: Crew,
    ) -> None:
        self.secret = settings.require_secret()
        self.rules = Rules(settings)
        self.redis_clock = clock_port
        self.claims = claims
        self.statuses = statuses
        self.policies = policies
        self.crew = crew
        self._paces: dict[tuple[str, str], Pace] = {}

    def dispatch(self, viewer: Viewer, command: Command, /) -> None:
        """Do `command`; whatever happens, a command with a ref is answered once."""
        name, handler = COMMANDS[type(command)]
        metrics.commands.add(name)
        try:
            handler(self, viewer, command)
        except Refused as refused:
            self._refuse(viewer, command.ref, refused)
        except Exception:
            log.exception("command_failed", command=name)
            viewer.refuse(command.ref, "internal")

    def _refuse(self, viewer: Viewer, ref: int | None, refused: Refused) -> None:
        name = refused.error.name
        metrics.refusals.add(name)
        viewer.refuse(ref, name, field=refused.field or "", retry_ms=refused.retry_ms)

    def pace_of(self, viewer: Viewer, user: str) -> Pace:
        """The pace of a signed-in viewer's user in this room."""
        budget: Budget | None = viewer.budget
        if budget is None or budget.pace is None:
            budget = budget_of(viewer)
            budget.pace = self._paces.setdefault((viewer.room.show_id, user), Pace())
        return budget.pace

    def forget_idle_paces(self, now_ms: float) -> None:
        """Drop paces that have no more influence. Call it about once a minute."""
        for key, pace in list(self._paces.items()):
            if now_ms - pace.seen_ms > PACE_KEPT_MS:
                del self._paces[key]


# --- Handlers ---------------------------------------------------------------------------------


def on_hello(commands: Commands, viewer: Viewer, hello: Hello) -> None:
    """Sign in, or refresh the token. The connection keeps its first user for good."""
    budget = budget_of(viewer)
    budget.hellos = _spend(budget.hellos, HELLO_RULE, clock.monotonic_ms())
    try:
        identity = auth.verify(commands.secret, hello.token)
    except Refused:
        _count_bad_token(viewer, budget)
        raise
    room = viewer.room
    if not identity.covers(room.show_id):
        raise Refused("forbidden", "The token is for another show", field="token")
    if viewer.user is not None and viewer.user != identity.user:
        raise Refused("other_user", field="token")
    if identity.user in commands.policies.of(room).policy.banned:
        viewer.refuse(hello.ref, "banned")
        viewer.close(BANNED_CLOSE)
        return
    role = commands.crew.role_in(room.show_id, identity)
    room.sign_in(viewer, identity.user, identity.name, role, identity.expires_at)
    result = HelloResult(identity.user, identity.name, role, identity.expires_at)
    _accept(viewer, hello.ref, hello=result)


def on_chat(commands: Commands, viewer: Viewer, chat: Chat) -> None:
    """Say something: at once told whether it will be shown and as what."""
    user = _signed_in(viewer)
    room = viewer.room
    _require_running(room)
    rules = commands.policies.of(room)
    text = clean_chat(chat.text)
    pace = commands.pace_of(viewer, user)
    now_ms = _seen_now(pace)
    if viewer.role not in _CREW:
        _require_unmuted(rules.policy.muted.get(user, 0), commands.redis_clock.now_ms())
        _require_slow(rules.policy.slow_mode_s, now_ms - pace.last_line_ms)
    pace.chat = _spend(pace.chat, commands.rules.chat, now_ms)
    if rules.words.refuses(text):
        raise Refused("word_refused", field="text")
    pace.last_line_ms = now_ms
    line = ChatLine(room.next_chat_id(), user, viewer.name, viewer.role, text)
    room.say(line)
    _accept(viewer, chat.ref, chat=ChatResult(line.id, text))


def on_like(commands: Commands, viewer: Viewer, like: Like) -> None:
    """Count taps, as many as the rate allows; none left is a refusal."""
    user = _signed_in(viewer)
    _require_running(viewer.room)
    pace = commands.pace_of(viewer, user)
    now_ms = _seen_now(pace)
    rule = commands.rules.likes
    if pace.likes is None:
        pace.likes = TokenBucket(rule, now_ms)
    taps = pace.likes.take_up_to(rule, now_ms, like.taps)
    if not taps:
        raise Refused("rate_limited")
    viewer.room.add_likes(taps)
    _accept(viewer, like.ref)


def on_claim(commands: Commands, viewer: Viewer, claim: Claim) -> None:
    """Hand a claim to the room's batcher, which answers it."""
    user = _signed_in(viewer)
    room = viewer.room
    pace = commands.pace_of(viewer, user)
    pace.claims = _spend(pace.claims, commands.rules.claims, _seen_now(pace))
    attempt = claim.attempt if claim.proof is UNSET else max(1, claim.attempt)  # proved: a repeat
    if attempt == 0 and f"sale:{claim.sale}" not in room.state:
        raise Refused("unknown_sale", field="sale")
    request = ClaimRequest(
        user,
        bytes.fromhex(claim.claim_id.replace("-", "")),
        claim.sale,
        claim.quantity,
        claim.price_version,
        attempt,
    )
    if attempt == 0:
        room.counts.claims += 1
    batcher = commands.claims.of(room)
    if claim.proof is UNSET:
        batcher.submit(viewer, claim.ref, request)
    else:
        hold = _hold_of(claim, claim.proof)
        batcher.resubmit(viewer, claim.ref, request, hold)


def on_order_status(commands: Commands, viewer: Viewer, question: OrderStatus) -> None:
    """Hand the question to the look-up desk, which answers it."""
    user = _signed_in(viewer)
    pace = commands.pace_of(viewer, user)
    pace.claims = _spend(pace.claims, commands.rules.claims, _seen_now(pace))
    commands.statuses.ask(viewer, question.ref, user, question.claim_id)


def on_time(commands: Commands, viewer: Viewer, time: Time) -> None:
    """Redis time, for clocks that count down to a sale."""
    now = commands.redis_clock.now_ms()
    viewer.send(Accepted(ref=time.ref, time=TimeResult(time.sent_at, now)))


Handler = Callable[[Commands, Viewer, Any], None]
_HANDLERS: Final[Mapping[type[Any], Handler]] = {
    Hello: on_hello,
    Chat: on_chat,
    Like: on_like,
    Claim: on_claim,
    OrderStatus: on_order_status,
    Time: on_time,
}
# With their names for the metrics.
COMMANDS: Final[Mapping[type[Any], tuple[str, Handler]]] = {
    kind: (str(kind.__struct_config__.tag), handler) for kind, handler in _HANDLERS.items()
}


def _hold_of(claim: Claim, proof: Proof) -> ClaimState:
    """The answer `held` that the client repeats, with its receipt."""
    return ClaimState(
        claim_id=claim.claim_id,
        status="held",
        sale=claim.sale,
        quantity=claim.quantity,
        price=proof.price,
        price_version=claim.price_version,
        epoch=proof.epoch,
        seq=proof.seq,
        receipt=proof.receipt,
    )


# --- Rules that handlers share ----------------------------------------------------------------


def _count_bad_token(viewer: Viewer, budget: Budget) -> None:
    """Nobody needs many tries to send a valid token."""
    budget.bad_tokens += 1
    if budget.bad_tokens >= BAD_TOKENS_MAX:  # after the refusal has been written
        asyncio.get_running_loop().call_soon(viewer.close, TOKEN_CLOSE)


def _accept(viewer: Viewer, ref: int | None, **told: Any) -> None:
    if ref is not None:
        viewer.send(Accepted(ref=ref, **told))


def _signed_in(viewer: Viewer) -> str:
    """The viewer's user. Raises Refused: token_required, token_expired."""
    if viewer.user is None:
        raise Refused("token_required")
    if viewer.expires_at_ms <= clock.now_ms():
        raise Refused("token_expired")
    return viewer.user


def _seen_now(pace: Pace) -> float:
    pace.seen_ms = now_ms = clock.monotonic_ms()
    return now_ms


def _spend(bucket: TokenBucket | None, rule: BucketRule, now_ms: float) -> TokenBucket:
    """Take one token, from a new bucket when there is none. Raises Refused(rate_limited)."""
    if bucket is None:
        bucket = TokenBucket(rule, now_ms)
    wait_ms = bucket.take(rule, now_ms)
    if wait_ms:
        raise Refused("rate_limited", retry_ms=wait_ms)
    return bucket


def _require_running(room: Room) -> None:
    """Chat and likes go on before the start and in a pause, and stop with the show."""
    show = room.state.get("show")
    if show is not None and show["phase"] == "ended":
        raise Refused("show_ended")


def _require_unmuted(until_ms: int, now_ms: int) -> None:
    if until_ms > now_ms:
        raise Refused("muted")


def _require_slow(slow_mode_s: int, since_last_ms: float) -> None:
    wait_ms = slow_mode_s * 1_000 - since_last_ms
    if wait_ms > 0:
        raise Refused("slow_mode", retry_ms=round(wait_ms) or 1)
