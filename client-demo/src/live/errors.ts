/**
 * What a client does about refusals and closed connections.
 *
 * Texts are never kept here: a refusal brings its own zh and en text. The names and the close
 * table are those of server/errors.py (tests/unit/test_client_errors.py compares them).
 */

/**
 * Refusals that say nothing about earlier sendings of the same claim id: they come from before
 * the claim script (or from a server that lost its stock), or nobody knows. After `attempt` 0 a
 * fresh id is used; when a sending may have arrived, the same id goes out again. All other refusals
 * of the newest sending are final.
 */
export const UNDECIDED_REFUSALS: ReadonlySet<string> = new Set([
  "busy",
  "outcome_unknown",
  "unavailable",
  "internal",
  "rate_limited",
  "stock_rebuilding",
  "token_required",
  "token_expired",
]);

/**
 * Refusals of `hello` after which the same token will not work again (`other_user` is none: on a
 * new connection it does). `token_expired` is so whatever command it answers.
 */
export const SIGN_IN_OVER: ReadonlySet<string> = new Set([
  "token_invalid",
  "token_expired",
  "forbidden",
  "banned",
]);

export interface CloseCode {
  name: string;
  reconnect: boolean;
}

export const CLOSES: Readonly<Record<number, CloseCode>> = {
  1000: { name: "normal", reconnect: false },
  1002: { name: "protocol_error", reconnect: false },
  1003: { name: "wrong_type", reconnect: false },
  1007: { name: "bad_text", reconnect: false },
  1009: { name: "too_big", reconnect: false },
  1012: { name: "restart", reconnect: true },
  1013: { name: "overloaded", reconnect: true },
  4400: { name: "malformed", reconnect: false },
  4401: { name: "token_invalid", reconnect: false },
  4403: { name: "removed", reconnect: false },
  4404: { name: "unknown_show", reconnect: false },
  4408: { name: "too_slow", reconnect: true },
  4409: { name: "silent", reconnect: true },
  4429: { name: "flooding", reconnect: false },
};

/** Whether to come back after close `code`; codes not in the table (1006 ...) are network faults. */
export function reconnectsAfter(code: number): boolean {
  return CLOSES[code]?.reconnect ?? true;
}
