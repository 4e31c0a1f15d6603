"""Host API: webhooks, and the log of what was sent to them."""

from server.acts import messages as m
from server.acts import views as v
from server.web.endpoint import Call, Endpoint
from server.web.host_shows import SHOW


async def list_webhooks(call: Call) -> v.WebhookList:
    return v.WebhookList(await call.acts.webhooks.list_all(call.identity, call.show))


async def create_webhook(call: Call) -> v.CreatedWebhook:
    return await call.acts.webhooks.create(call.identity, call.show, call.body)


async def remove_webhook(call: Call) -> None:
    await call.acts.webhooks.remove(call.identity, call.show, call.ids["webhook"])


async def list_deliveries(call: Call) -> v.DeliveryList:
    where = (call.identity, call.show, call.ids["webhook"])
    return v.DeliveryList(await call.acts.webhooks.deliveries(*where, call.query))


async def resend_delivery(call: Call) -> v.Resent:
    where = (call.identity, call.show, call.ids["webhook"])
    return await call.acts.webhooks.resend(*where, call.ids["delivery"])


async def resend_failed(call: Call) -> v.Resent:
    where = (call.identity, call.show, call.ids["webhook"])
    return await call.acts.webhooks.resend(*where, None)


WEBHOOK = f"{SHOW}/webhooks/{{webhook:int}}"

ENDPOINTS = (
    Endpoint(
        "GET", f"{SHOW}/webhooks", "list_webhooks", "Webhooks of the show, newest first",
        list_webhooks, v.WebhookList,
    ),
    Endpoint(
        "POST", f"{SHOW}/webhooks", "create_webhook", "Tell a URL what happens in the show",
        create_webhook, v.CreatedWebhook, body=m.CreateWebhook, status=201,
    ),
    Endpoint(
        "DELETE", WEBHOOK, "remove_webhook", "Send nothing more to a webhook", remove_webhook,
        None, status=204,
    ),
    Endpoint(
        "GET", f"{WEBHOOK}/deliveries", "list_deliveries", "Delivery log, newest first",
        list_deliveries, v.DeliveryList, query=m.DeliveriesQuery,
    ),
    Endpoint(
        "POST", f"{WEBHOOK}/deliveries/{{delivery:int}}/resend", "resend_delivery",
        "Send a delivery again, under the same id", resend_delivery, v.Resent,
    ),
    Endpoint(
        "POST", f"{WEBHOOK}/resend", "resend_failed", "Send everything again that failed",
        resend_failed, v.Resent,
    ),
)  # fmt: skip
