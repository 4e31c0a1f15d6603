/** Flash sales: making one, and watching and steering those there are. */

import { useState } from "preact/hooks";
import { type Key, t } from "../i18n";
import type { StockState } from "../live";
import { count, dateTime, money, parseMoney, plainMoney, span } from "../ui/format";
import { StockBar, StockNumbers } from "../ui/parts";
import type { Desk } from "./desk";
import { ActButton, ActForm, Field, MoneyField, momentOf, UnitsField, type Values } from "./form";
import type { Sale, Sku } from "./types";

export function Sales({ desk }: { desk: Desk }) {
  const sales = [...desk.sales.value].sort((a, b) => rank(a) - rank(b) || b.sale - a.sale);
  return (
    <>
      <section class="card">
        <h2>{t("sale.create")}</h2>
        <CreateSale desk={desk} />
      </section>
      <section class="card">
        <h2>{t("sale.list")}</h2>
        {sales.length === 0 && <p class="empty">{t("sale.none")}</p>}
        {sales.map((sale) => (
          <OneSale key={sale.sale} desk={desk} sale={sale} />
        ))}
      </section>
    </>
  );
}

/** Running sales first, finished ones last. */
function rank(sale: Sale): number {
  return ["open", "scheduled", "draft", "closing", "closed"].indexOf(sale.status);
}

function CreateSale({ desk }: { desk: Desk }) {
  const [start, setStart] = useState("now");
  const choices = desk.products.value.flatMap((product) =>
    product.skus.map((sku) => ({ sku, label: `${product.title} · ${sku.title}` })),
  );
  const skus = new Map(choices.map(({ sku }) => [String(sku.sku), sku]));
  if (choices.length === 0) return <p class="empty">{t("sku.none")}</p>;
  return (
    <ActForm
      label={t("sale.create")}
      act={(values) => desk.createSale(newSale(values, skus.get(values.sku ?? "")))}
    >
      <label class="field">
        <span>{t("sale.sku")}</span>
        <select name="sku" required>
          {choices.map(({ sku, label }) => (
            <option key={sku.sku} value={sku.sku}>
              {label} ({money(sku.price, sku.currency)}, {sku.inventory - sku.allotted})
            </option>
          ))}
        </select>
      </label>
      <div class="fields">
        <MoneyField label={t("sale.price")} name="price" placeholder="99.00" />
        <UnitsField label={t("sale.units")} name="units" value={20} />
        <UnitsField label={t("sale.limit_per_buyer")} name="limit_per_buyer" value={1} />
        <UnitsField label={t("sale.countdown_s")} name="countdown_s" min={0} max={300} value={10} />
        <UnitsField
          label={t("sale.duration_s")}
          name="duration_s"
          min={10}
          max={1200}
          value={300}
        />
        <UnitsField label={t("sale.pay_within_s")} name="pay_within_s" min={0} value={0} />
        <label class="field">
          <span>{t("sale.start")}</span>
          <select
            name="start"
            value={start}
            onChange={(event) => setStart(event.currentTarget.value)}
          >
            {(["now", "at", "later"] as const).map((choice) => (
              <option key={choice} value={choice}>
                {t(`sale.start.${choice}`)}
              </option>
            ))}
          </select>
        </label>
        {start === "at" && (
          <Field
            label={t("sale.starts_at")}
            name="starts_at"
            type="datetime-local"
            step="1"
            required
          />
        )}
      </div>
    </ActForm>
  );
}

function newSale(values: Values, sku: Sku | undefined): object {
  const number = (name: string) => Number(values[name]);
  return {
    sku: number("sku"),
    price: parseMoney(values.price ?? "", sku?.currency ?? "CNY"),
    units: number("units"),
    limit_per_buyer: number("limit_per_buyer"),
    countdown_s: number("countdown_s"),
    duration_s: number("duration_s"),
    pay_within_s: number("pay_within_s"),
    start: values.start,
    starts_at: momentOf(values.starts_at),
  };
}

function OneSale({ desk, sale }: { desk: Desk; sale: Sale }) {
  const live = desk.live.state.value.values;
  const stock = live.stocks[sale.sale] ?? bookStock(sale);
  const price = live.sales[sale.sale]?.price ?? sale.price;
  const ended = sale.status === "closing" || sale.status === "closed";
  return (
    <article class="host-sale" data-sale={sale.sale}>
      <header class="row">
        <h3>
          {sale.product_title} <small>{sale.sku_title}</small>
        </h3>
        <Status desk={desk} sale={sale} stock={stock} />
      </header>
      <p class="terms">
        <b class="terms-price">{money(price, sale.currency)}</b>
        <s>{money(sale.list_price, sale.currency)}</s>
        <span>{t("sale.limit", { n: sale.limit_per_buyer })}</span>
      </p>
      <StockBar stock={stock} />
      <StockNumbers stock={stock} />
      <Takings desk={desk} sale={sale} />
      {!ended && <Steer desk={desk} sale={sale} />}
    </article>
  );
}

/** What PostgreSQL's books say of the sale. */
function Takings({ desk, sale }: { desk: Desk; sale: Sale }) {
  const books = desk.stats.value.find((row) => row.sale === sale.sale);
  if (!books || books.orders === 0) return null;
  const amount = money(books.amount, books.currency);
  return <p class="takings">{t("sale.takings", { n: count(books.orders), amount })}</p>;
}

/** Until viewers see the sale its units are those of the books. */
function bookStock(sale: Sale): StockState {
  const total = sale.initial + sale.restocked - sale.lowered;
  const { reserved: held, sold } = sale;
  return { epoch: 0, version: 0, sale: sale.sale, left: total - held - sold, held, sold, total };
}

function Status({ desk, sale, stock }: { desk: Desk; sale: Sale; stock: StockState }) {
  const now = desk.live.now.value;
  const terms = desk.live.state.value.values.sales[sale.sale] ?? sale;
  const kind = statusOf(sale, stock, terms, now);
  const until = kind === "countdown" ? terms.opens_at : kind === "open" ? terms.closes_at : 0;
  return (
    <span class={`status sale-${kind}`} data-sale-status={kind}>
      {t(`sale.status.${kind}` satisfies Key)}
      {until > 0 && <time>{span(until - now)}</time>}
      {kind === "scheduled" && <time>{dateTime(terms.opens_at)}</time>}
    </span>
  );
}

type Window = { opens_at: number; closes_at: number };

function statusOf(sale: Sale, stock: StockState, { opens_at, closes_at }: Window, now: number) {
  if (sale.status !== "open" && sale.status !== "scheduled") return sale.status;
  if (closes_at > 0 && now >= closes_at) return "closing";
  if (now < opens_at) return opens_at - now > 3_600_000 ? "scheduled" : "countdown";
  return stock.left <= 0 ? "sold_out" : "open";
}

function Steer({ desk, sale }: { desk: Desk; sale: Sale }) {
  return (
    <>
      <div class="row">
        {sale.status === "draft" && (
          <ActButton
            class="primary"
            label={t("sale.start_now")}
            act={() => desk.startSale(sale.sale, 0)}
          />
        )}
        <ActButton
          class="danger"
          label={t("sale.stop")}
          confirms
          act={() => desk.stopSale(sale.sale)}
        />
      </div>
      <details>
        <summary>{t("sale.adjust")}</summary>
        {sale.status === "draft" && <StartAt desk={desk} sale={sale} />}
        <Units desk={desk} sale={sale} verb="restock" />
        <Units desk={desk} sale={sale} verb="lower" />
        <ActForm
          class="inline"
          label={t("sale.change_price")}
          act={({ price = "" }) => desk.changePrice(sale.sale, parseMoney(price, sale.currency))}
        >
          <MoneyField
            label={t("sale.new_price")}
            name="price"
            value={plainMoney(sale.price, sale.currency)}
          />
        </ActForm>
      </details>
    </>
  );
}

function StartAt({ desk, sale }: { desk: Desk; sale: Sale }) {
  return (
    <ActForm
      class="inline"
      label={t("sale.start_at")}
      act={({ starts_at }) => desk.startSale(sale.sale, momentOf(starts_at))}
    >
      <Field label={t("sale.starts_at")} name="starts_at" type="datetime-local" step="1" required />
    </ActForm>
  );
}

function Units({ desk, sale, verb }: { desk: Desk; sale: Sale; verb: "restock" | "lower" }) {
  return (
    <ActForm
      class="inline"
      label={t(`sale.${verb}`)}
      act={({ units }) => desk.changeUnits(sale.sale, verb, Number(units))}
    >
      <UnitsField label={t("sale.units_short")} name="units" value={10} />
    </ActForm>
  );
}
