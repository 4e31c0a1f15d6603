/** The sale that runs: the largest thing on the console. */

import { t } from "../i18n";
import type { StockState } from "../live";
import { count } from "../ui/format";
import { Picture, StockBar } from "../ui/parts";
import type { Desk } from "./desk";
import { Countdown, Status, stockOf, Takings, Terms } from "./sale-state";
import { Steer } from "./steer";
import type { Sale } from "./types";

export function RunningSale({ desk, sale }: { desk: Desk; sale: Sale }) {
  const stock = stockOf(desk, sale);
  const product = desk.products.value.find((one) => one.product === sale.product);
  return (
    <article class="card host-sale running" data-sale={sale.sale}>
      <header class="running-head">
        <Picture url={product?.image_url ?? ""} title={sale.product_title} />
        <div class="running-name">
          <h3>
            {sale.product_title} <small>{sale.sku_title}</small>
          </h3>
          <Terms desk={desk} sale={sale} />
        </div>
        <div class="running-time">
          <Status desk={desk} sale={sale} />
          <Countdown desk={desk} sale={sale} />
        </div>
      </header>
      <Figures stock={stock} />
      <StockBar stock={stock} />
      <Takings desk={desk} sale={sale} />
      {desk.may("stop_sale") && <Steer desk={desk} sale={sale} quick />}
    </article>
  );
}

const FIGURES = ["left", "held", "sold"] as const;

function Figures({ stock }: { stock: StockState }) {
  return (
    <dl class="figures">
      {FIGURES.map((name) => (
        <div key={name} class={`big-figure big-${name}`}>
          <dt>{t(`sale.${name}`)}</dt>
          <dd>
            <b key={stock[name]} class="roll" data-stock={name}>
              {count(stock[name])}
            </b>
            {name === "left" && <small>{t("sale.of", { n: count(stock.total) })}</small>}
          </dd>
        </div>
      ))}
    </dl>
  );
}
