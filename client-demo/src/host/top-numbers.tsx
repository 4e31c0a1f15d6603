/** The show's headline numbers, for the console's top bar. */

import { useComputed } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { t } from "../i18n";
import { count } from "../ui/format";
import type { Desk } from "./desk";
import { amountsText, perMille } from "./figures";
import type { Amounts, PinWindow } from "./number-types";
import type { SaleStats } from "./types";

export function TopNumbers({ desk }: { desk: Desk }) {
  const values = useComputed(() => desk.live.state.value.values).value;
  const likes = values.likes?.total ?? 0;
  const paid = Object.values(values.stocks).reduce((all, stock) => all + stock.sold, 0);
  return (
    <dl class="kpis">
      <Kpi label={t("kpi.online")}>
        <span data-online>{count(values.online?.people ?? 0)}</span>
      </Kpi>
      <Kpi label={t("kpi.likes")}>
        <span data-likes={likes}>{count(likes)}</span>
      </Kpi>
      {desk.may("see_money") && (
        <Kpi label={t("kpi.amount")}>
          <span data-amount>{amountsText(takings(desk.stats.value)) || "–"}</span>
        </Kpi>
      )}
      <Kpi label={t("kpi.paid")}>
        <span data-paid={paid}>{count(paid)}</span>
      </Kpi>
      <Kpi label={t("kpi.conversion")}>
        <span data-conversion>{conversionText(pinnedNow(desk))}</span>
      </Kpi>
    </dl>
  );
}

function Kpi({ label, children }: { label: string; children: ComponentChildren }) {
  return (
    <div class="kpi">
      <dt>{label}</dt>
      <dd>{children}</dd>
    </div>
  );
}

/** Orders that stand, by currency. */
export function takings(stats: readonly SaleStats[]): Amounts {
  const amounts: Record<string, number> = {};
  for (const { currency, amount } of stats) amounts[currency] = (amounts[currency] ?? 0) + amount;
  return amounts;
}

/** The window of the product that is being explained. */
function pinnedNow(desk: Desk): PinWindow | undefined {
  const newest = desk.numbers.pins.reading.value?.value.at(-1);
  return newest?.product === desk.pinned.value ? newest : undefined;
}

export function conversionText(pin: PinWindow | undefined): string {
  return pin && pin.conversion_pm >= 0 ? perMille(pin.conversion_pm) : "–";
}
