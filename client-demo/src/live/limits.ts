/** Bounds of the protocol a client must keep: the values of server/limits.py, same names. */

export const REF_MAX = 2 ** 31 - 1;
export const CHAT_CHARS_MAX = 120;
export const LIKE_TAPS_MAX = 100;
export const CLAIM_QUANTITY_MAX = 99;
export const ATTEMPT_MAX = 1_000;
export const NAME_CHARS_MAX = 24;
export const RECENT_CHAT_MAX = 50;
