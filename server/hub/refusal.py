"""Refused replies, made from the rows of server/errors.py."""

from server.errors import ERRORS
from server.protocol.messages import RefusedReply


def refusal(
    ref: int | None,
    name: str,
    field: str = "",
    retry_ms: int | None = None,
    price: int = 0,
    price_version: int = 0,
) -> RefusedReply:
    """The refusal of command `ref` with the row `name`; `retry_ms` replaces the row's hint."""
    row = ERRORS[name]
    return RefusedReply(
        ref=ref,
        code=row.code,
        name=row.name,
        retryable=row.retryable,
        retry_ms=row.retry_ms if retry_ms is None else retry_ms,
        zh=row.zh,
        en=row.en,
        field=field,
        price=price,
        price_version=price_version,
    )
