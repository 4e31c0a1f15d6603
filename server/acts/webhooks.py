"""Acts on webhooks: where a show's events are told to, and the log of what was told.

The order worker's process sends them (server/orders/sender.py). A target is checked here, so that
the host hears what is wrong with it, and again at every connection (server/webhooks/target.py).
"""

from server import limits
from server.acts.desk import Act, Desk, Permission
from server.acts.messages import CreateWebhook, DeliveriesQuery
from server.acts.views import (
    CreatedWebhook,
    DeliveryView,
    Resent,
    WebhookView,
    delivery_view,
    webhook_view,
)
from server.domain.identity import Identity, require_host
from server.errors import Refused
from server.records import webhooks
from server.webhooks.sign import new_secret
from server.webhooks.target import Resolver, TargetRefused, require_target
from server.webhooks.topics import TOPICS

LISTED_MAX = 100  # endpoints, removed ones included


class WebhookActs:
    """Errors: Refused by rule, RecordsUnavailable (whether it was committed is unknown).

    `permission` says who may: the show's host, and operators at their terminal.
    """

    def __init__(
        self,
        desk: Desk,
        resolver: Resolver,
        *,
        allow_private: bool,
        permission: Permission = require_host,
    ) -> None:
        self._desk = desk
        self._resolver = resolver
        self._allow_private = allow_private
        self._permission = permission

    async def list_all(self, identity: Identity, show_id: str) -> list[WebhookView]:
        """A show's endpoints, newest first, those that were removed last."""
        async with self._desk.reading(identity, show_id, self._permission) as act:
            rows = await webhooks.list_endpoints(act.conn, show_id, LISTED_MAX)
        return [webhook_view(row) for row in rows]

    async def create(self, identity: Identity, show_id: str, body: CreateWebhook) -> CreatedWebhook:
        """An endpoint that is told what happens from now on.

        Raises Refused: bad_field (url), conflict (too many, or the URL is one of them already).
        """
        async with self._desk.reading(identity, show_id, self._permission):
            pass  # who may not, learns nothing about addresses
        try:
            await require_target(body.url, self._resolver, allow_private=self._allow_private)
        except TargetRefused as refusal:
            raise Refused("bad_field", str(refusal), field="url") from None
        secret, topics = new_secret(), sorted(set(body.topics or TOPICS))
        async with self._desk.act(identity, show_id, self._permission, ended=True) as act:
            await _require_place(act, body.url)
            number = await webhooks.insert_endpoint(act.conn, show_id, body.url, secret, topics)
            await act.note("create_webhook", {"webhook": number, "topics": topics})
            rows = await webhooks.list_endpoints(act.conn, show_id, LISTED_MAX)
        row = next(row for row in rows if row.endpoint_id == number)
        return CreatedWebhook(*row, secret)

    async def remove(self, identity: Identity, show_id: str, webhook: int) -> None:
        """Nothing more is sent to it. A repeat changes nothing. Raises Refused(not_found)."""
        async with self._desk.act(identity, show_id, self._permission, ended=True) as act:
            await _require_endpoint(act, webhook)
            if await webhooks.remove_endpoint(act.conn, show_id, webhook, identity.user):
                await act.note("remove_webhook", {"webhook": webhook})

    async def deliveries(
        self, identity: Identity, show_id: str, webhook: int, query: DeliveriesQuery
    ) -> list[DeliveryView]:
        """The delivery log of an endpoint, newest first. Raises Refused(not_found)."""
        async with self._desk.reading(identity, show_id, self._permission) as act:
            await _require_endpoint(act, webhook)
            rows = await webhooks.list_deliveries(
                act.conn, webhook, query.status, query.before, query.limit
            )
        return [delivery_view(row) for row in rows]

    async def resend(
        self, identity: Identity, show_id: str, webhook: int, delivery: int | None
    ) -> Resent:
        """Send a delivery again, or (None) all that failed; each under the id it always had.

        Raises Refused: not_found, conflict (the endpoint was removed).
        """
        async with self._desk.act(identity, show_id, self._permission, ended=True) as act:
            await _require_endpoint(act, webhook)
            if delivery is not None:
                await _require_resendable(act, webhook, delivery)
            count = await webhooks.resend(act.conn, webhook, delivery)
            detail = {"webhook": webhook, "delivery": delivery, "count": count}
            await act.note("resend_webhook", detail)
        return Resent(count)


async def _require_place(act: Act, url: str) -> None:
    """Raises Refused(conflict) unless the show may have this endpoint too."""
    rows = await webhooks.list_endpoints(act.conn, act.show.show_id, LISTED_MAX)
    standing = [row for row in rows if not row.removed_at]
    if any(row.url == url for row in standing):
        raise Refused("conflict", "This URL is an endpoint of the show already", field="url")
    if len(standing) >= limits.WEBHOOKS_PER_SHOW_MAX:
        raise Refused("conflict", f"A show has at most {limits.WEBHOOKS_PER_SHOW_MAX} endpoints")


async def _require_endpoint(act: Act, webhook: int) -> None:
    if not await webhooks.has_endpoint(act.conn, act.show.show_id, webhook):
        raise Refused("not_found", "No such webhook")


async def _require_resendable(act: Act, webhook: int, delivery: int) -> None:
    can = await webhooks.can_resend(act.conn, act.show.show_id, webhook, delivery)
    if can is None:
        raise Refused("not_found", "No such delivery")
    if not can:
        raise Refused("conflict", "The webhook was removed")
