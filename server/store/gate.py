"""The gate of a show in Redis, as the order worker may move it: shut, until reconciled."""

from server.store import keys
from server.store.scripts import Scripts


async def close_for_rebuilding(scripts: Scripts, show_id: str) -> bool:
    """Refuse all claims, takes and gives of the show with stock_rebuilding; idempotent.

    True when the gate was not shut before. Raises StoreUnavailable (effect unknown).
    """
    return bool(await scripts.run("close_gate", [keys.meta(show_id)], ()))
