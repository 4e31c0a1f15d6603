/** The orders table as data: newest first, and never reordered under somebody's pointer. */

import type { Order } from "../ui/api";

/**
 * `rows` brought up to date by `page`, the newest orders there are now. Rows of the page's range
 * that are not in it any more do not match the filter; older ones stay as they were.
 */
export function refreshed(rows: readonly Order[], page: readonly Order[], full: number): Order[] {
  const oldest = page.at(-1)?.order_id ?? 0;
  const beyond = page.length < full ? [] : rows.filter((row) => row.order_id < oldest);
  return [...page, ...beyond];
}

/** `page` for somebody who reads `rows`: the same rows with their new states, and no others. */
export function inPlace(rows: readonly Order[], page: readonly Order[]): Order[] {
  const known = new Map(page.map((row) => [row.order_id, row]));
  return rows.map((row) => known.get(row.order_id) ?? row);
}

/** Orders of `page` that `rows` do not show. */
export function unseen(rows: readonly Order[], page: readonly Order[]): number {
  const newest = rows[0]?.order_id ?? 0;
  return page.filter((row) => row.order_id > newest).length;
}

export interface Search {
  order: string;
  buyer: string;
}

const ORDER_NUMBER = /^[1-9]\d{0,15}$/;

/** What somebody typed: digits are an order's number, everything else is a buyer. */
export function searchOf(text: string): Search {
  const word = text.trim().replace(/^#/, "");
  return ORDER_NUMBER.test(word) ? { order: word, buyer: "" } : { order: "", buyer: word };
}
