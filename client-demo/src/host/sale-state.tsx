/** A sale as the room sees it: its terms, its units and its phase on server time. */

import { useComputed } from "@preact/signals";
import { type Key, t } from "../i18n";
import type { StockState } from "../live";
import { count, dateTime, money, span } from "../ui/format";
import type { Desk } from "./desk";
import type { Sale } from "./types";

/** The room's word where it has one; until then the units are those of the books. */
export function stockOf(desk: Desk, sale: Sale): StockState {
  return desk.live.state.value.values.stocks[sale.sale] ?? bookStock(sale);
}

function bookStock(sale: Sale): StockState {
  const total = sale.initial + sale.restocked - sale.lowered;
  const { reserved: held, sold } = sale;
  return { epoch: 0, version: 0, sale: sale.sale, left: total - held - sold, held, sold, total };
}

export function priceOf(desk: Desk, sale: Sale): number {
  return desk.live.state.value.values.sales[sale.sale]?.price ?? sale.price;
}

type Window = { opens_at: number; closes_at: number };

function windowOf(desk: Desk, sale: Sale): Window {
  return desk.live.state.value.values.sales[sale.sale] ?? sale;
}

const FAR_MS = 3_600_000;

export function statusOf(
  sale: Sale,
  stock: StockState,
  { opens_at, closes_at }: Window,
  now: number,
) {
  if (sale.status !== "open" && sale.status !== "scheduled") return sale.status;
  if (closes_at > 0 && now >= closes_at) return "closing";
  if (now < opens_at) return opens_at - now > FAR_MS ? "scheduled" : "countdown";
  return stock.left <= 0 ? "sold_out" : "open";
}

/** Renders only when the status changes, however fast the clock goes. */
export function Status({ desk, sale }: { desk: Desk; sale: Sale }) {
  const kind = useComputed(() => {
    return statusOf(sale, stockOf(desk, sale), windowOf(desk, sale), desk.live.now.value);
  }).value;
  return (
    <span class={`status sale-${kind}`} data-sale-status={kind}>
      {t(`sale.status.${kind}` satisfies Key)}
      {kind === "scheduled" && <time>{dateTime(windowOf(desk, sale).opens_at)}</time>}
    </span>
  );
}

/** The time to the opening or to the end; nothing outside of both. */
export function Countdown({ desk, sale }: { desk: Desk; sale: Sale }) {
  const now = desk.live.now.value;
  const { opens_at, closes_at } = windowOf(desk, sale);
  if (closes_at === 0 || now >= closes_at) return null;
  const opens = now < opens_at;
  return (
    <p class="sale-clock">
      <small>{t(opens ? "sale.opens" : "sale.closes")}</small>
      <time>{span((opens ? opens_at : closes_at) - now)}</time>
    </p>
  );
}

export function Terms({ desk, sale }: { desk: Desk; sale: Sale }) {
  const price = priceOf(desk, sale);
  return (
    <p class="terms">
      <b key={price} class="terms-price flip">
        {money(price, sale.currency)}
      </b>
      <s>{money(sale.list_price, sale.currency)}</s>
      <span>{t("sale.limit", { n: sale.limit_per_buyer })}</span>
    </p>
  );
}

/** What PostgreSQL's books say of the sale. */
export function Takings({ desk, sale }: { desk: Desk; sale: Sale }) {
  const books = desk.stats.value.find((row) => row.sale === sale.sale);
  if (!books || books.orders === 0) return null;
  const amount = money(books.amount, books.currency);
  return <p class="takings">{t("sale.takings", { n: count(books.orders), amount })}</p>;
}
