/** One flash sale in a row: terms, stock, countdown by server time, and the button. */

import { t } from "../i18n";
import type { SaleState, StockState } from "../live";
import { count, money, span } from "../ui/format";
import { Bolt, Chevron } from "../ui/icons";
import { Picture, StockBar, StockNumbers } from "../ui/parts";
import { BuyButton, Outcome } from "./buy";
import { isOver } from "./buying";
import { itemOf, live, openBuy, values } from "./page";
import { PinMark } from "./pin";

export function SaleCard({ sale }: { sale: SaleState }) {
  const stock = values.value.stocks[sale.sale];
  const pinned = values.value.pin?.product === sale.product;
  return (
    <article class="sale paper" data-sale={sale.sale} aria-label={t("sale.label")}>
      <header class="sale-head">
        <b>
          <Bolt />
          {t("sale.label")}
        </b>
        {pinned && <PinMark />}
        <Countdown sale={sale} />
      </header>
      <div class="sale-body">
        <Item sale={sale} stock={stock} />
        <BuyButton sale={sale} />
      </div>
      {stock && (
        <div class="sale-stock">
          <StockBar stock={stock} />
          <StockNumbers stock={stock} />
        </div>
      )}
      <Outcome sale={sale} />
    </article>
  );
}

/** Picture, name and price; a tap opens the buy sheet. */
function Item({ sale, stock }: { sale: SaleState; stock: StockState | undefined }) {
  const { product, sku } = itemOf(sale);
  const title = product?.title ?? "";
  // A sale that was closed has nothing left either: what it had went back.
  const gone = stock?.left === 0 && stock.total > 0 && sale.phase !== "closed";
  return (
    <button
      type="button"
      class="sale-item"
      data-open-buy={sale.sale}
      onClick={() => openBuy(sale.sale)}
    >
      <span class="sale-picture">
        <Picture url={product?.image_url ?? ""} title={title} />
        {gone && <em class="stamp">{t("stock.gone")}</em>}
      </span>
      <span class="sale-words">
        <span class="sale-title">{title}</span>
        <span class="sale-sku">
          <span>{sku?.title ?? ""}</span>
          <span class="sale-choose">
            <span>
              {t(sale.limit_per_buyer > 1 ? "buy.choose" : "sale.limit", {
                n: sale.limit_per_buyer,
              })}
            </span>
            <Chevron />
          </span>
        </span>
        <Price sale={sale} />
      </span>
    </button>
  );
}

/** A new price flips in. */
export function Price({ sale }: { sale: SaleState }) {
  return (
    <span class="price">
      <b key={sale.price} class="roll" data-price={sale.price}>
        {money(sale.price, sale.currency)}
      </b>
      {sale.list_price > sale.price && (
        <s title={t("sale.list_price")}>{money(sale.list_price, sale.currency)}</s>
      )}
    </span>
  );
}

function Countdown({ sale }: { sale: SaleState }) {
  const now = live.now.value;
  if (isOver(sale, now)) return <span class="countdown">{t("sale.over")}</span>;
  if (sale.opens_at === 0) return null;
  const opening = now < sale.opens_at;
  const left = (opening ? sale.opens_at : sale.closes_at) - now;
  return (
    <span class={opening ? "countdown countdown-opening" : "countdown"} role="timer">
      {t(opening ? "sale.opens_in" : "sale.closes_in")}
      <time>{span(left)}</time>
    </span>
  );
}

/** The last seconds before a sale opens, large over the picture: server time, whole seconds. */
const COUNTED_MS = 10_000;

export function CountIn({ sale }: { sale: SaleState }) {
  const left = sale.opens_at - live.now.value;
  if (sale.opens_at === 0 || left <= 0 || left > COUNTED_MS) return null;
  const seconds = Math.ceil(left / 1000);
  return (
    <p class="count-in" aria-hidden="true">
      <b key={seconds}>{count(seconds)}</b>
    </p>
  );
}
