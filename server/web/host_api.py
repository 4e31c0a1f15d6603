"""The host API: every endpoint in one table.

Who may what: hosts manage the shows that are theirs and that their token covers; moderators pin
products and keep order in the show their token names. Wrong or missing tokens are 401, another
host's show 403, an unknown one 404. server/web/app.py makes the routes and the OpenAPI document.
"""

from typing import Final

from server.web import (
    host_dead_letters,
    host_moderation,
    host_orders,
    host_sales,
    host_shows,
    host_webhooks,
)
from server.web.endpoint import Endpoint

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *host_shows.ENDPOINTS,
    *host_sales.ENDPOINTS,
    *host_orders.ENDPOINTS,
    *host_moderation.ENDPOINTS,
    *host_webhooks.ENDPOINTS,
    *host_dead_letters.ENDPOINTS,
)
