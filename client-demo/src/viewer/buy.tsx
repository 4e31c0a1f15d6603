/** The way to buy, on the card and on the buy sheet: the button, and what became of it. */

import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { t, textOf } from "../i18n";
import type { ClaimRecord, SaleState } from "../live";
import { money, span } from "../ui/format";
import { claimsOf } from "../ui/live";
import { type BuyState, buyState, unitsHeld, unitsTaken } from "./buying";
import { linkLive, live, me, sheet, state, values } from "./page";

/** Chosen quantity by sale; 1 where nobody chose. */
export const quantities = signal<Readonly<Record<number, number>>>({});

/** The quantity that goes out with the next press, at most `allowed`; at least 1. */
export function quantityOf(sale: number, allowed: number): number {
  return Math.max(1, Math.min(quantities.value[sale] ?? 1, allowed));
}

/** The newest price this page was told: the room's, or the one a refusal just named. */
export function newestPrice(sale: SaleState, claims: readonly ClaimRecord[]) {
  const told = claims.at(-1)?.refusal;
  const newer = told?.price_version !== undefined && told.price_version > sale.price_version;
  const { price, price_version } = newer ? { ...sale, ...told } : sale;
  return { price, price_version };
}

interface BuyProps {
  sale: SaleState;
  /** Buy further units although there is something to pay. */
  more?: boolean;
}

export function BuyButton({ sale, more = false }: BuyProps) {
  const claims = claimsOf(state.value, sale.sale);
  const buy = useBuyState(sale, claims, more);
  const allowed = "allowed" in buy ? buy.allowed : 1;
  return (
    <button
      type="button"
      class={`buy buy-${buy.kind}`}
      data-buy={buy.kind}
      aria-disabled={!canPress(buy)}
      onClick={() => press(buy, sale, claims, quantityOf(sale.sale, allowed))}
    >
      {buyText(buy, sale, claims)}
    </button>
  );
}

/** Drawn again at the moment when `busy` ends, which no step of the clock may meet. */
function useBuyState(sale: SaleState, claims: ClaimRecord[], more: boolean): BuyState {
  const [, redraw] = useState(0);
  const buy = buyState({
    linkLive: linkLive.value,
    signedIn: me.value !== null,
    showPhase: values.value.show?.phase ?? "",
    sale,
    stock: values.value.stocks[sale.sale],
    claims,
    more,
    now: Math.max(live.now.value, live.session.clock.now()),
  });
  const busyMs = buy.kind === "busy" ? buy.inMs : 0;
  useEffect(() => {
    if (busyMs === 0) return;
    const timer = setTimeout(() => redraw((n) => n + 1), busyMs);
    return () => clearTimeout(timer);
  }, [busyMs]);
  return buy;
}

function canPress(buy: BuyState): boolean {
  return "allowed" in buy || buy.kind === "sign_in" || buy.kind === "pay";
}

function press(buy: BuyState, sale: SaleState, claims: ClaimRecord[], quantity: number): void {
  if (buy.kind === "sign_in") sheet.value = "sign_in";
  if (buy.kind === "pay") sheet.value = "orders";
  if (!("allowed" in buy)) return;
  live.session.buy({ sale: sale.sale, quantity, ...newestPrice(sale, claims) });
}

function buyText(buy: BuyState, sale: SaleState, claims: readonly ClaimRecord[]): string {
  switch (buy.kind) {
    case "not_open":
      return t("buy.not_open", { time: span(buy.inMs) });
    case "pay":
      return t("buy.pay_button", { time: span(buy.inMs) });
    case "busy":
      return t("buy.busy", { n: Math.ceil(buy.inMs / 1000) });
    case "price_changed":
      return t("buy.price_changed", {
        price: money(newestPrice(sale, claims).price, sale.currency),
      });
    case "open":
      return t(unitsTaken(claims) > 0 ? "buy.again" : "buy.open");
    default:
      return t(`buy.${buy.kind}`);
  }
}

/** What this buyer has, provisional units said apart, or why the last try failed. */
export function Outcome({ sale }: { sale: SaleState }) {
  const claims = claimsOf(state.value, sale.sale);
  const held = unitsHeld(claims);
  const got = unitsTaken(claims) - held;
  const last = claims.at(-1);
  const refusal = last?.phase === "refused" || last?.phase === "unknown" ? last.refusal : null;
  return (
    <p class="outcome" role="status">
      {got > 0 && <span class="outcome-got">{t("buy.got", { n: got })}</span>}
      {held > 0 && <span>{t("buy.provisional", { n: held })}</span>}
      {refusal && <span class="outcome-refused">{textOf(refusal)}</span>}
      {last?.answer?.status === "released_by_incident" && (
        <span class="outcome-refused">{t("claim.released_by_incident")}</span>
      )}
    </p>
  );
}
