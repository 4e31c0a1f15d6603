/** What is read out to people who do not see the page: little, and never faster than it is heard. */

import type { ChatLine } from "../live";

/** Units left that are worth a word when the stock falls to them or below. */
const STOCK_STOPS = [0, 10, 50];

export const CHAT_EVERY_MS = 5_000;
const CHAT_LINES_MAX = 3;

/** The lowest stop that the stock reached by falling from `before` to `after`; null: none. */
export function stockNews(before: number, after: number): number | null {
  return STOCK_STOPS.find((stop) => before > stop && after <= stop) ?? null;
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
