/** The way to buy, on the card and on the buy sheet: the button, and what became of it. */

import { useEffect, useState } from "preact/hooks";
import { t, textOf } from "../i18n";
import type { ClaimRecord, ClaimWish, LiveState, SaleState } from "../live";
import { money, span } from "../ui/format";
import { claimsOf } from "../ui/live";
import {
  type BuyFacts,
  type BuyState,
  buyState,
  canPress,
  pressed,
  unitsBought,
  unitsHeld,
  unitsTaken,
} from "./buying";
import { live, sheet, state } from "./page";

/** The newest price this page was told: the room's, or the one a refusal just named. */
export function newestPrice(sale: SaleState, claims: readonly ClaimRecord[]) {
  const told = claims.at(-1)?.refusal;
  const newer = told?.price_version !== undefined && told.price_version > sale.price_version;
  const { price, price_version } = newer ? { ...sale, ...told } : sale;
  return { price, price_version };
}

interface BuyProps {
  sale: SaleState;
  /** Units of one press. */
  quantity?: number;
  /** Buy further units although there is something to pay. */
  more?: boolean;
}

export function BuyButton({ sale, quantity = 1, more = false }: BuyProps) {
  const facts = factsOf(state.value, sale, more);
  const buy = useBuyState(facts);
  const wish = { sale: sale.sale, quantity, ...newestPrice(sale, facts.claims) };
  return (
    <button
      type="button"
      class={`buy buy-${buy.kind}`}
      data-buy={buy.kind}
      aria-disabled={!canPress(buy)}
      onClick={() => press(buy, factsOf(live.session.state, sale, more), wish)}
    >
      {buyText(buy, sale, facts.claims)}
    </button>
  );
}

function factsOf(known: LiveState, sale: SaleState, more: boolean): BuyFacts {
  return {
    linkLive: known.link.state === "live",
    signedIn: known.me !== null,
    showPhase: known.values.show?.phase ?? "",
    sale,
    stock: known.values.stocks[sale.sale],
    claims: claimsOf(known, sale.sale),
    more,
    now: Math.max(live.now.value, live.session.clock.now()),
  };
}

/** Drawn again at the moment when a pause ends, which no step of the clock may meet. */
function useBuyState(facts: BuyFacts): BuyState {
  const [, redraw] = useState(0);
  const buy = buyState(facts);
  const pauseMs = "allowed" in buy || buy.kind === "busy" ? buy.inMs : 0;
  useEffect(() => {
    if (pauseMs === 0) return;
    const timer = setTimeout(() => redraw((n) => n + 1), pauseMs);
    return () => clearTimeout(timer);
  }, [pauseMs]);
  return buy;
}

function press(painted: BuyState, facts: BuyFacts, wish: ClaimWish): void {
  switch (pressed(painted, facts, wish.quantity)) {
    case "sign_in":
      sheet.value = "sign_in";
      break;
    case "pay":
      sheet.value = "orders";
      break;
    case "buy":
      live.session.buy(wish);
  }
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
  const got = unitsBought(claims);
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
