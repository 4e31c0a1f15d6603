/** A sale that waits to be started, or is over: one small card. */

import { t } from "../i18n";
import { count, money } from "../ui/format";
import { StockBar, StockNumbers } from "../ui/parts";
import type { Desk } from "./desk";
import { ActButton, ActForm, Field, momentOf } from "./form";
import { Status, stockOf, Takings, Terms } from "./sale-state";
import { Steer } from "./steer";
import type { Sale } from "./types";

export function OneSale({ desk, sale }: { desk: Desk; sale: Sale }) {
  const stock = stockOf(desk, sale);
  const draft = sale.status === "draft";
  return (
    <article class="host-sale" data-sale={sale.sale}>
      <header class="row">
        <h3>
          {sale.product_title} <small>{sale.sku_title}</small>
        </h3>
        <Status desk={desk} sale={sale} />
      </header>
      <Terms desk={desk} sale={sale} />
      <StockBar stock={stock} />
      <StockNumbers stock={stock} />
      <Takings desk={desk} sale={sale} />
      {draft && desk.may("start_sale") && <Start desk={desk} sale={sale} />}
      {draft && desk.may("stop_sale") && <Steer desk={desk} sale={sale} />}
    </article>
  );
}

function Start({ desk, sale }: { desk: Desk; sale: Sale }) {
  const { price, list_price: list, product_title: name, currency } = sale;
  const units = stockOf(desk, sale).total;
  const what = t("undo.create", { name, price: money(price, currency), n: count(units) });
  const startNow = () =>
    desk.undo.run({ act: "open", price, list, units }, sale.sale, what, () =>
      desk.startSale(sale.sale, 0),
    );
  return (
    <div class="start">
      <ActButton class="primary" label={t("sale.start_now")} act={startNow} />
      <ActForm
        class="inline"
        label={t("sale.start_at")}
        act={({ starts_at }) => desk.startSale(sale.sale, momentOf(starts_at))}
      >
        <Field
          label={t("sale.starts_at")}
          name="starts_at"
          type="datetime-local"
          step="1"
          required
        />
      </ActForm>
    </div>
  );
}
