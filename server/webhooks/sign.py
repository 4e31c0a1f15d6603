"""Secrets and signatures of Standard Webhooks: symmetric, `v1`, HMAC-SHA256."""

import base64
from datetime import UTC, datetime
from typing import Final

from standardwebhooks import Webhook

from server import clock

SECRET_BYTES: Final = 32  # the specification asks for 24 to 64
FORM: Final = "whsec_{}"


def new_secret() -> str:
    """An endpoint's secret in the form in which receivers' libraries take it."""
    return FORM.format(base64.b64encode(clock.random_bytes(SECRET_BYTES)).decode())


def signed_headers(secret: str, webhook_id: str, at_s: int, body: str) -> dict[str, str]:
    """The three headers for `body`, sent at `at_s` (s since 1970) as message `webhook_id`."""
    signature = Webhook(secret).sign(webhook_id, datetime.fromtimestamp(at_s, UTC), body)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": signature,
    }
