/** Steering a sale: units, price, stop. Large changes are held back for a moment. */

import { useState } from "preact/hooks";
import { t } from "../i18n";
import type { ApiError } from "../ui/api";
import { count, money, parseMoney, plainMoney } from "../ui/format";
import { Failure } from "../ui/parts";
import type { Desk } from "./desk";
import { ActButton, ActForm, MoneyField, UnitsField } from "./form";
import { type Change, isLarge, percent } from "./large";
import { priceOf, stockOf } from "./sale-state";
import type { Sale } from "./types";

const QUICK_UNITS = [10, 50] as const;

interface SteerProps {
  desk: Desk;
  sale: Sale;
}

/** `quick`: restocking by one click. */
export function Steer({ desk, sale, quick }: SteerProps & { quick?: boolean }) {
  const [error, setError] = useState<ApiError | null>(null);
  const stop = () => desk.stopSale(sale.sale);
  const what = t("undo.stop", { name: sale.product_title });
  return (
    <>
      <div class="row">
        {quick &&
          QUICK_UNITS.map((units) => (
            <ActButton
              key={units}
              label={t("sale.quick", { verb: t("sale.restock"), n: `+${units}` })}
              act={() => changeUnits({ desk, sale }, "restock", units)}
              onError={setError}
            />
          ))}
        <ActButton
          class="danger stop"
          label={t("sale.stop")}
          act={() => desk.undo.run({ act: "stop" }, sale.sale, what, stop)}
          onError={setError}
        />
      </div>
      <Failure error={error} />
      <details>
        <summary>{t("sale.adjust")}</summary>
        <div class="adjust">
          <Units desk={desk} sale={sale} verb="restock" />
          <Units desk={desk} sale={sale} verb="lower" />
          <Price desk={desk} sale={sale} />
        </div>
      </details>
    </>
  );
}

type UnitsVerb = "restock" | "lower";

function unitsChange({ desk, sale }: SteerProps, act: UnitsVerb, units: number): Change {
  return { act, units, total: stockOf(desk, sale).total };
}

function changeUnits(props: SteerProps, verb: UnitsVerb, units: number): Promise<unknown> {
  const { desk, sale } = props;
  const change = unitsChange(props, verb, units);
  return desk.undo.run(change, sale.sale, t(`undo.${verb}`, { n: count(units) }), () =>
    desk.changeUnits(sale.sale, verb, units),
  );
}

function Units({ verb, ...props }: SteerProps & { verb: UnitsVerb }) {
  const { total, left } = stockOf(props.desk, props.sale);
  return (
    <ActForm
      class="inline"
      label={t(`sale.${verb}`)}
      act={({ units }) => changeUnits(props, verb, Number(units))}
      preview={({ units }) => {
        if (verb === "lower" && Number(units) > left) {
          return <p class="change change-large">{t("sale.lower_most", { n: count(left) })}</p>;
        }
        const to = total + (verb === "restock" ? 1 : -1) * Number(units ?? 0);
        const large = isLarge(unitsChange(props, verb, Number(units ?? 0)));
        const text = t("sale.units_change", { from: count(total), to: count(to) });
        return <p class={large ? "change change-large" : "change"}>{text}</p>;
      }}
    >
      <UnitsField label={t("sale.units_short")} name="units" value={10} />
    </ActForm>
  );
}

function Price({ desk, sale }: SteerProps) {
  const { currency, list_price: list } = sale;
  const from = priceOf(desk, sale);
  const changeTo = (price: string): Change & { act: "price" } => {
    return { act: "price", from, to: parseMoney(price, currency), list };
  };
  const arrow = (to: number) =>
    t("undo.change", { from: money(from, currency), to: money(to, currency) });
  return (
    <ActForm
      class="inline"
      label={t("sale.change_price")}
      currency={() => currency}
      act={({ price = "" }) => {
        const change = changeTo(price);
        const what = t("undo.price", { change: arrow(change.to) });
        return desk.undo.run(change, sale.sale, what, () => desk.changePrice(sale.sale, change.to));
      }}
      preview={({ price = "" }) => {
        const change = changeTo(price);
        if (Number.isNaN(change.to)) return null;
        return (
          <p class={isLarge(change) ? "change change-large" : "change"}>
            {arrow(change.to)} <b>{percent(from, change.to)}</b>
          </p>
        );
      }}
    >
      <MoneyField
        label={t("sale.new_price")}
        name="price"
        value={plainMoney(sale.price, currency)}
      />
    </ActForm>
  );
}
