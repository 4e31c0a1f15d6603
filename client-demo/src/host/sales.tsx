/** Flash sales: what is on sale now, making one, and those that wait or are over. */

import { useState } from "preact/hooks";
import { t } from "../i18n";
import { count, money, parseMoney, span } from "../ui/format";
import type { Desk } from "./desk";
import { ActForm, Field, MoneyField, momentOf, UnitsField, type Values } from "./form";
import { percent } from "./large";
import { OneSale } from "./one-sale";
import { RunningSale } from "./running-sale";
import type { Sale, Sku } from "./types";

export function Sales({ desk }: { desk: Desk }) {
  const newest = [...desk.sales.value].sort((a, b) => b.sale - a.sale);
  const running = newest.filter((sale) => sale.status === "open" || sale.status === "scheduled");
  const drafts = newest.filter((sale) => sale.status === "draft");
  const over = newest.filter((sale) => sale.status === "closing" || sale.status === "closed");
  return (
    <div class="sales" id="sales" tabIndex={-1}>
      {running.map((sale) => (
        <RunningSale key={sale.sale} desk={desk} sale={sale} />
      ))}
      <Group title={t("sale.waiting")} desk={desk} sales={drafts} />
      {desk.may("create_sale") && (
        <details key="create" class="card" open={running.length + drafts.length === 0}>
          <summary>{t("sale.create")}</summary>
          <CreateSale desk={desk} />
        </details>
      )}
      <Group title={t("sale.over")} desk={desk} sales={over} />
    </div>
  );
}

function Group({ title, desk, sales }: { title: string; desk: Desk; sales: readonly Sale[] }) {
  if (sales.length === 0) return null;
  return (
    <section class="card">
      <h2>{title}</h2>
      {sales.map((sale) => (
        <OneSale key={sale.sale} desk={desk} sale={sale} />
      ))}
    </section>
  );
}

function CreateSale({ desk }: { desk: Desk }) {
  const [start, setStart] = useState("now");
  const choices = desk.products.value.flatMap((product) =>
    product.skus.map((sku) => ({ sku, label: `${product.title} · ${sku.title}` })),
  );
  const skus = new Map(choices.map(({ sku }) => [String(sku.sku), sku]));
  if (choices.length === 0) return <p class="empty">{t("next.hint.product")}</p>;
  const create = async (values: Values) => {
    const done = await createSale(desk, values, skus.get(values.sku ?? ""));
    if (done !== false) setStart("now");
    return done;
  };
  return (
    <ActForm
      label={t("sale.create")}
      clears
      currency={(values) => skus.get(values.sku ?? "")?.currency ?? ""}
      act={create}
      preview={(values) => <Preview values={values} sku={skus.get(values.sku ?? "")} />}
    >
      <label class="field">
        <span>{t("sale.sku")}</span>
        <select name="sku" required>
          {choices.map(({ sku, label }) => (
            <option key={sku.sku} value={sku.sku}>
              {label} ({money(sku.price, sku.currency)}, {count(sku.inventory - sku.allotted)})
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

/** The sale in one line, before it is made. */
function Preview({ values, sku }: { values: Values; sku: Sku | undefined }) {
  const price = parseMoney(values.price ?? "", sku?.currency ?? "CNY");
  if (!sku || Number.isNaN(price)) return null;
  return (
    <p class={price >= sku.price ? "preview preview-odd" : "preview"}>
      <b>{money(price, sku.currency)}</b> <s>{money(sku.price, sku.currency)}</s>{" "}
      {t("sale.preview", {
        off: percent(sku.price, price),
        n: count(Number(values.units)),
        countdown: values.countdown_s ?? "",
        length: span(1_000 * Number(values.duration_s)),
      })}
    </p>
  );
}

/** One that opens now and looks like a slip of the hand is held back; false: it was taken back. */
function createSale(desk: Desk, values: Values, sku: Sku | undefined): Promise<unknown> {
  const fields = newSale(values, sku);
  const send = () => desk.createSale(fields);
  if (values.start !== "now" || !sku) return send();
  const { price, units } = fields;
  const name = sku.title;
  const what = t("undo.create", { name, price: money(price, sku.currency), n: count(units) });
  const change = { act: "open", price, list: sku.price, units } as const;
  return desk.undo.run(change, `sku ${sku.sku}`, what, send);
}

function newSale(values: Values, sku: Sku | undefined) {
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
