/** One flash sale: terms, stock, countdown by server time, and the way to buy. */

import { signal } from "@preact/signals";
import { t, textOf } from "../i18n";
import type { ClaimRecord, SaleState } from "../live";
import { money, span } from "../ui/format";
import { claimsOf } from "../ui/live";
import { Picture, StockBar, StockNumbers } from "../ui/parts";
import { type BuyState, buyState, isOver, unitsHeld, unitsTaken } from "./buying";
import { nextToPay } from "./orders";
import { itemOf, linkLive, live, sheet, state, values } from "./page";

/** Chosen quantity by sale; 1 where nobody chose. */
const quantities = signal<Readonly<Record<number, number>>>({});

export function SaleCard({ sale }: { sale: SaleState }) {
  const { product, sku } = itemOf(sale);
  const stock = values.value.stocks[sale.sale];
  const claims = claimsOf(state.value, sale.sale);
  return (
    <article class="sale" data-sale={sale.sale} aria-label={t("sale.label")}>
      <header class="sale-head">
        <b>{t("sale.label")}</b>
        {values.value.pin?.product === sale.product && <em>{t("pin.label")}</em>}
        <Countdown sale={sale} />
      </header>
      <div class="sale-body">
        <Picture url={product?.image_url ?? ""} title={product?.title ?? ""} />
        <div class="sale-item">
          <h2>{product?.title ?? ""}</h2>
          <p class="sale-sku">
            {sku?.title ?? ""} <span>{t("sale.limit", { n: sale.limit_per_buyer })}</span>
          </p>
          <Price sale={sale} />
        </div>
      </div>
      {stock && <StockBar stock={stock} />}
      {stock && <StockNumbers stock={stock} />}
      <Buy sale={sale} claims={claims} />
    </article>
  );
}

function Price({ sale }: { sale: SaleState }) {
  return (
    <p class="price">
      <b data-price={sale.price}>{money(sale.price, sale.currency)}</b>
      {sale.list_price > sale.price && (
        <s title={t("sale.list_price")}>{money(sale.list_price, sale.currency)}</s>
      )}
    </p>
  );
}

function Countdown({ sale }: { sale: SaleState }) {
  const now = live.now.value;
  if (isOver(sale, now)) return <span class="countdown">{t("sale.over")}</span>;
  if (sale.opens_at === 0) return null;
  const opening = now < sale.opens_at;
  return (
    <span class={opening ? "countdown countdown-opening" : "countdown"} role="timer">
      {t(opening ? "sale.opens_in" : "sale.closes_in")}
      <time>{span((opening ? sale.opens_at : sale.closes_at) - now)}</time>
    </span>
  );
}

function Buy({ sale, claims }: { sale: SaleState; claims: ClaimRecord[] }) {
  const buy = buyState({
    linkLive: linkLive.value,
    signedIn: state.value.me !== null,
    showPhase: values.value.show?.phase ?? "",
    sale,
    stock: values.value.stocks[sale.sale],
    claims,
    now: live.now.value,
  });
  const allowed = "allowed" in buy ? buy.allowed : 0;
  const quantity = Math.max(1, Math.min(quantities.value[sale.sale] ?? 1, allowed));
  return (
    <>
      <div class="buy-row">
        {allowed > 1 && <Stepper sale={sale.sale} quantity={quantity} max={allowed} />}
        <button
          type="button"
          class={`buy buy-${buy.kind}`}
          data-buy={buy.kind}
          disabled={!canPress(buy)}
          onClick={() => press(buy, sale, claims, quantity)}
        >
          {buyText(buy, sale, claims)}
        </button>
      </div>
      <Outcome claims={claims} />
    </>
  );
}

function canPress(buy: BuyState): boolean {
  return "allowed" in buy || buy.kind === "sign_in";
}

function press(buy: BuyState, sale: SaleState, claims: ClaimRecord[], quantity: number): void {
  if (buy.kind === "sign_in") sheet.value = "sign_in";
  if (!("allowed" in buy)) return;
  live.session.buy({ sale: sale.sale, quantity, ...newestPrice(sale, claims) });
}

/** The price shown: the room's, or the newer one a refusal just told. */
function newestPrice(sale: SaleState, claims: readonly ClaimRecord[]) {
  const told = claims.at(-1)?.refusal;
  const newer = told?.price_version !== undefined && told.price_version > sale.price_version;
  const { price, price_version } = newer ? { ...sale, ...told } : sale;
  return { price, price_version };
}

function buyText(buy: BuyState, sale: SaleState, claims: readonly ClaimRecord[]): string {
  switch (buy.kind) {
    case "not_open":
      return t("buy.not_open", { time: span(buy.inMs) });
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

interface StepperProps {
  sale: number;
  quantity: number;
  max: number;
}

function Stepper({ sale, quantity, max }: StepperProps) {
  const set = (value: number) => {
    quantities.value = { ...quantities.value, [sale]: value };
  };
  return (
    <fieldset class="stepper" aria-label={t("sale.quantity")}>
      <button
        type="button"
        disabled={quantity <= 1}
        aria-label={t("sale.less")}
        onClick={() => set(quantity - 1)}
      >
        −
      </button>
      <output>{quantity}</output>
      <button
        type="button"
        disabled={quantity >= max}
        aria-label={t("sale.more_units")}
        onClick={() => set(quantity + 1)}
      >
        +
      </button>
    </fieldset>
  );
}

/** What this buyer has, provisional units said apart, or why the last try failed. */
function Outcome({ claims }: { claims: readonly ClaimRecord[] }) {
  const held = unitsHeld(claims);
  const got = unitsTaken(claims) - held;
  const last = claims.at(-1);
  const refusal = last?.phase === "refused" || last?.phase === "unknown" ? last.refusal : null;
  const now = live.now.value;
  const unpaid = nextToPay(claims, now);
  return (
    <p class="outcome" role="status">
      {got > 0 && <span class="outcome-got">{t("buy.got", { n: got })}</span>}
      {unpaid && (
        <button type="button" class="outcome-pay" onClick={() => (sheet.value = "orders")}>
          {t("buy.pay", { time: span((unpaid.pay_by ?? 0) - now) })}
        </button>
      )}
      {held > 0 && <span>{t("buy.provisional", { n: held })}</span>}
      {refusal && <span class="outcome-refused">{textOf(refusal)}</span>}
      {last?.answer?.status === "released_by_incident" && (
        <span class="outcome-refused">{t("claim.released_by_incident")}</span>
      )}
    </p>
  );
}
