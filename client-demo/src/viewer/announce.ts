/** What is read out of the stock to people who do not see the page. */

/** Units left that are worth a word when the stock falls to them or below. */
const STOCK_STOPS = [0, 10, 50];

/**
 * The number of units left that is to be read out once the stock went from `before` to `after`:
 * that which it had when it last fell to a stop. Null: none, or there are more again than `said`.
 */
export function stockNews(said: number | null, before: number, after: number): number | null {
  if (STOCK_STOPS.some((stop) => before > stop && after <= stop)) return after;
  return said !== null && after <= said ? said : null;
}
