"""Every error code and close code: number, name, whether a retry can help, and what to tell people.

One table each. PROTOCOL.md lists them (tests/unit/test_docs.py checks), the HTTP API and the
WebSocket use the same names, and the client takes its texts from here.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class ErrorCode(NamedTuple):
    """One reason for refusing a command. `retry_ms` is a hint; 0 where a retry cannot help."""

    code: int
    name: str
    http_status: int
    retryable: bool
    retry_ms: int
    zh: str
    en: str


_ROWS: Final = (
    # 10xx: the message itself
    ErrorCode(1000, "malformed", 400, False, 0, "消息格式错误", "The message is malformed"),
    ErrorCode(1001, "unknown_command", 400, False, 0, "未知的命令", "Unknown command"),
    ErrorCode(1002, "bad_field", 422, False, 0, "字段不合法", "A field is not valid"),
    ErrorCode(1003, "too_large", 413, False, 0, "内容过大", "Too large"),
    ErrorCode(1004, "not_found", 404, False, 0, "没有找到", "Not found"),
    ErrorCode(1005, "conflict", 409, False, 0, "与当前状态冲突", "In conflict with the state"),
    # 11xx: who is asking
    ErrorCode(1100, "token_required", 401, False, 0, "请先登录", "Sign in first"),
    ErrorCode(1101, "token_invalid", 401, False, 0, "登录凭证无效", "The token is not valid"),
    ErrorCode(1102, "token_expired", 401, True, 0, "登录已过期", "The token has expired"),
    ErrorCode(1103, "forbidden", 403, False, 0, "没有权限", "Not allowed"),
    ErrorCode(
        1104, "other_user", 403, False, 0, "连接已属于另一用户", "The connection has another user"
    ),
    ErrorCode(1105, "too_many_connections", 429, True, 5_000, "连接数过多", "Too many connections"),
    ErrorCode(1106, "origin_refused", 403, False, 0, "来源不被允许", "The origin is not allowed"),
    # 12xx: order in the room
    ErrorCode(1200, "rate_limited", 429, True, 1_000, "太快了,请稍后再试", "Too fast, slow down"),
    ErrorCode(1201, "slow_mode", 429, True, 1_000, "慢速模式,请稍候", "Slow mode: please wait"),
    ErrorCode(1202, "muted", 403, False, 0, "你已被禁言", "You are muted"),
    ErrorCode(1203, "banned", 403, False, 0, "你已被移出直播间", "You are banned from this show"),
    ErrorCode(1204, "word_refused", 422, False, 0, "内容包含不允许的词", "Contains a refused word"),
    ErrorCode(1205, "text_too_long", 422, False, 0, "内容太长", "The text is too long"),
    ErrorCode(1206, "text_empty", 422, False, 0, "内容为空", "The text is empty"),
    # 13xx: show and sale
    ErrorCode(1300, "show_not_live", 409, True, 1_000, "直播尚未开始", "The show is not live"),
    ErrorCode(1301, "show_paused", 409, True, 2_000, "直播已暂停", "The show is paused"),
    ErrorCode(1302, "show_ended", 409, False, 0, "直播已结束", "The show has ended"),
    ErrorCode(1303, "unknown_sale", 404, False, 0, "没有这场秒杀", "Unknown sale"),
    ErrorCode(1304, "sale_not_open", 409, True, 500, "秒杀尚未开始", "The sale is not open yet"),
    ErrorCode(1305, "sale_closed", 409, False, 0, "秒杀已结束", "The sale is closed"),
    ErrorCode(1306, "price_changed", 409, True, 0, "价格已更新", "The price has changed"),
    ErrorCode(1307, "limit_reached", 409, False, 0, "超过每人限购", "Per-buyer limit reached"),
    ErrorCode(1308, "sold_out", 409, True, 1_000, "已抢光", "Sold out"),
    ErrorCode(
        1309, "claim_conflict", 409, False, 0, "同一编号的请求内容不同", "Claim id used differently"
    ),
    ErrorCode(1310, "out_of_stock", 409, False, 0, "库存不足", "Not enough stock"),
    # 14xx: the server's own trouble
    ErrorCode(1400, "busy", 503, True, 500, "系统繁忙,请重试", "Busy, try again"),
    ErrorCode(
        1401, "outcome_unknown", 503, True, 300, "结果确认中,请用同一编号重试",
        "Outcome unknown: send the same claim again",
    ),
    ErrorCode(1402, "unavailable", 503, True, 1_000, "服务暂不可用", "Temporarily unavailable"),
    ErrorCode(
        1403, "stock_rebuilding", 503, True, 1_000, "库存核对中", "The stock is being reconciled"
    ),
    ErrorCode(1404, "internal", 500, True, 1_000, "内部错误", "Internal error"),
)  # fmt: skip

ERRORS: Final[Mapping[str, ErrorCode]] = {row.name: row for row in _ROWS}
ERRORS_BY_CODE: Final[Mapping[int, ErrorCode]] = {row.code: row for row in _ROWS}
assert len(ERRORS) == len(ERRORS_BY_CODE) == len(_ROWS)


class CloseCode(NamedTuple):
    """Why the server ends a connection. `reconnect`: the client should come back by itself."""

    code: int
    name: str
    reconnect: bool
    meaning: str


# RFC 6455 section 7.4.1 for 1xxx; 4xxx are ours.
CLOSES: Final[Mapping[str, CloseCode]] = {
    row.name: row
    for row in (
        CloseCode(1000, "normal", False, "The client closed, or the show's room was closed"),
        CloseCode(1002, "protocol_error", False, "The frames break RFC 6455"),
        CloseCode(1003, "wrong_type", False, "Text on a binary subprotocol, or the reverse"),
        CloseCode(1007, "bad_text", False, "Text that is not UTF-8"),
        CloseCode(1009, "too_big", False, "A message above the size limit"),
        CloseCode(1012, "restart", True, "The process is stopping; the bye said when to return"),
        CloseCode(1013, "overloaded", True, "Try again later"),
        CloseCode(4400, "malformed", False, "Too many malformed commands"),
        CloseCode(4401, "token_invalid", False, "The token was refused"),
        CloseCode(4403, "removed", False, "Kicked or banned from the show"),
        CloseCode(4404, "unknown_show", False, "No such show"),
        CloseCode(4408, "too_slow", True, "The client did not read for too long"),
        CloseCode(4409, "silent", True, "No answer to pings"),
        CloseCode(4429, "flooding", False, "Too many frames"),
    )
}


class LivesaleError(Exception):
    """Root of our own exceptions. Expected outcomes are values, these are not."""


class Refused(LivesaleError):
    """A request that is refused by rule; nothing was changed. `error` says why.

    `detail` is for people (English, no user input echoed), `field` names the offending field.
    """

    def __init__(
        self, name: str, detail: str = "", *, field: str | None = None, retry_ms: int | None = None
    ) -> None:
        self.error = ERRORS[name]
        self.detail = detail
        self.field = field
        self.retry_ms = self.error.retry_ms if retry_ms is None else retry_ms
        super().__init__(f"{name}: {detail}" if detail else name)


class StoreUnavailable(LivesaleError):
    """Redis did not answer. Whether a write took effect is unknown."""


class StoreDamaged(StoreUnavailable):
    """A script or command stumbles over what stands in the keys of one show, and will again until
    somebody mends them. Other shows are well."""


class RecordsUnavailable(LivesaleError):
    """PostgreSQL did not answer. Whether a transaction committed is unknown."""


class Misconfigured(LivesaleError):
    """The server cannot start like this. The message says what to change."""


class Unfit(Misconfigured):
    """Redis keeps less than was promised, or may evict: nothing may be sold on it until it is
    mended. It can become so while we run."""
