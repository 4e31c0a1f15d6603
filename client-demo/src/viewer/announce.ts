/** What is read out to people who do not see the page: little, and never faster than it is heard. */

import type { ChatLine } from "../live";

/** Units left that are worth a word when the stock falls to them or below. */
const STOCK_STOPS = [0, 10, 50];

export const CHAT_EVERY_MS = 5_000;
const CHAT_LINES_MAX = 3;

/**
 * The number of units left that is to be read out once the stock went from `before` to `after`:
 * that which it had when it last fell to a stop. Null: none, or there are more again than `said`.
 */
export function stockNews(said: number | null, before: number, after: number): number | null {
  if (STOCK_STOPS.some((stop) => before > stop && after <= stop)) return after;
  return said !== null && after <= said ? said : null;
}

export interface ChatNews {
  /** The newest lines, oldest first. */
  lines: readonly ChatLine[];
  /** Lines that came too and are not read. */
  more: number;
}

/** `fresh`, what came since the last time, cut to what can be listened to. */
export function chatNews(fresh: readonly ChatLine[]): ChatNews {
  const lines = fresh.slice(-CHAT_LINES_MAX);
  return { lines, more: fresh.length - lines.length };
}
