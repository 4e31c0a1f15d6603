/** Which acts are large enough to be held back for a moment. */

const UNITS = 100;
const SHARE_OF_TOTAL = 0.5;
const PRICE_STEP = 0.3;
const SHARE_OF_LIST = 0.5;
/** Opening a sale is everyday work: only what looks like a slip of the hand is large. */
const OPEN_UNITS = 1_000;
const OPEN_SHARE_OF_LIST = 0.3;

/** An act with what it changes; money in minor units. */
export type Change =
  | { act: "stop" | "end" | "ban" }
  | { act: "open"; price: number; list: number; units: number }
  | { act: "price"; from: number; to: number; list: number }
  | { act: "restock" | "lower"; units: number; total: number };

/** Not to be undone later, or far from what was. */
export function isLarge(change: Change): boolean {
  if (change.act === "price") return isLargePrice(change.from, change.to, change.list);
  if (change.act === "open") {
    return change.units >= OPEN_UNITS || change.price < OPEN_SHARE_OF_LIST * change.list;
  }
  if (change.act === "restock" || change.act === "lower") {
    return change.units >= UNITS || change.units >= SHARE_OF_TOTAL * change.total;
  }
  return true;
}

function isLargePrice(from: number, to: number, list: number): boolean {
  if (to === from) return false;
  return Math.abs(to - from) >= PRICE_STEP * from || to < SHARE_OF_LIST * list;
}

/** The change from `from` to `to` in whole percent, with its sign; "" when there was nothing. */
export function percent(from: number, to: number): string {
  if (from <= 0) return "";
  const by = Math.round((100 * (to - from)) / from);
  return `${by > 0 ? "+" : by < 0 ? "\u2212" : ""}${Math.abs(by)}%`;
}
