"""How the demo provider tells its news: late, often, in the wrong order, or not at all, as asked.

Sent over HTTP as a real provider would, and again with growing pauses until it is taken. What is
still waiting when the process ends is lost: that is the provider that stays silent.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, Literal

import aiohttp
import structlog
from msgspec import Struct

from server.errors import Refused
from server.payments.demo import DemoProvider
from server.payments.provider import Intent

log = structlog.get_logger()

RETRY_S: Final = (0.5, 1, 2, 4, 8, 16, 32, 60)  # pauses after an answer that is not 2xx
SEND_S: Final = 10.0
WAITING_MAX: Final = 1_000  # payments whose webhooks are not all taken; beyond it busy

Outcome = Literal["paid", "failed", "silent"]


class Behaviour(Struct, frozen=True):
    """What the provider shall do. `repeat`: copies of each webhook, sent at once. `reorder`: a
    paid payment had failed first, and that is told last."""

    outcome: Outcome
    delay_ms: int = 0
    repeat: int = 1
    reorder: bool = False

    def events(self) -> Sequence[str]:
        """Types of the webhooks, in the order of sending."""
        if self.outcome == "silent":
            return ()
        if self.outcome == "failed":
            return ("payment.failed",)
        return ("payment.captured", "payment.failed") if self.reorder else ("payment.captured",)


class DemoWebhooks:
    """Sends webhooks in tasks of its own until `aclose`."""

    def __init__(self, provider: DemoProvider) -> None:
        self.provider = provider
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, url: str, intent: Intent, behaviour: Behaviour) -> int:
        """Begin to tell `url`; how many webhooks that will be. Raises Refused(busy)."""
        if len(self._tasks) >= WAITING_MAX:
            raise Refused("busy")
        events = behaviour.events()
        if events:
            task = asyncio.create_task(self._tell(url, intent, behaviour, events))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return len(events) * behaviour.repeat

    async def _tell(
        self, url: str, intent: Intent, behaviour: Behaviour, events: Sequence[str]
    ) -> None:
        await asyncio.sleep(behaviour.delay_ms / 1000)
        timeout = aiohttp.ClientTimeout(total=SEND_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for type_ in events:
                await self._send(session, url, type_, intent, behaviour.repeat)

    async def _send(
        self, session: aiohttp.ClientSession, url: str, type_: str, intent: Intent, copies: int
    ) -> None:
        """One webhook in so many copies, again until all were taken."""
        webhook = self.provider.webhook(type_, intent)
        for pause in (*RETRY_S, None):
            statuses = await asyncio.gather(
                *(_post(session, url, webhook.body, webhook.headers) for _ in range(copies))
            )
            if all(200 <= status < 300 for status in statuses):
                return
            if pause is not None:
                await asyncio.sleep(pause)
        log.warning("demo_webhook_given_up", payment_id=str(intent.payment_id), type=type_)

    async def aclose(self) -> None:
        """Stop telling; what was not sent never will be."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _post(
    session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]
) -> int:
    """HTTP status; 0 when nobody answered."""
    try:
        async with session.post(url, data=body, headers=headers) as response:
            return response.status
    except (aiohttp.ClientError, TimeoutError, OSError):
        return 0
