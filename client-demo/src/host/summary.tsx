/** The show when it is over: what came of it, for the screen and for paper. */

import { useState } from "preact/hooks";
import { t } from "../i18n";
import type { ApiError } from "../ui/api";
import { count, dateTime, money, span, timeOfDay } from "../ui/format";
import { Failure } from "../ui/parts";
import { verdictNow, verdictText } from "./audit-badge";
import { Charts } from "./charts";
import { createShow, type Desk } from "./desk";
import { amountsText, perMille } from "./figures";
import { ActButton, ActForm } from "./form";
import type { SaleSummary, ShowSummary } from "./number-types";
import { saveCsv } from "./orders";
import { PinTable } from "./pins";
import { ShowFieldset, showFields } from "./show-list";
import { TableBox } from "./table-box";

export function Summary({ desk }: { desk: Desk }) {
  const { reading, error } = desk.numbers.summary;
  const known = reading.value?.value;
  return (
    <>
      <section class="card summary" data-summary={desk.status.value}>
        {!known && !error.value && <p class="empty">{t("loading")}</p>}
        <Failure error={error.value} />
        {known && <Told desk={desk} summary={known} />}
      </section>
      <Charts desk={desk} />
    </>
  );
}

function Told({ desk, summary }: { desk: Desk; summary: ShowSummary }) {
  return (
    <>
      <Heading desk={desk} summary={summary} />
      <Headlines desk={desk} summary={summary} />
      <h3>{t("summary.sales")}</h3>
      {summary.sales.length === 0 ? (
        <p class="empty">{t("sale.none")}</p>
      ) : (
        <SaleTable desk={desk} sales={summary.sales} />
      )}
      <h3>{t("pins.title")}</h3>
      {summary.pins.length === 0 ? (
        <p class="empty">{t("pins.none")}</p>
      ) : (
        <PinTable desk={desk} pins={[...summary.pins].reverse()} />
      )}
      {desk.may("audit") && <Audited desk={desk} />}
      {desk.may("create_show") && <Again desk={desk} />}
    </>
  );
}

function Audited({ desk }: { desk: Desk }) {
  const { reading } = desk.numbers.audit;
  const verdict = verdictNow(desk);
  return (
    <p class={verdict.kind === "bad" ? "verdict verdict-bad" : "verdict"}>
      {t("audit.title")} · {verdictText(verdict)}{" "}
      {reading.value && <small>{t("audit.at", { time: timeOfDay(reading.value.value.at) })}</small>}
    </p>
  );
}

function Heading({ desk, summary }: { desk: Desk; summary: ShowSummary }) {
  const [error, setError] = useState<ApiError | null>(null);
  const { started_at, ended_at } = summary;
  const end = ended_at || desk.second.value;
  return (
    <>
      <header class="row">
        <h2>{t("summary.title", { title: summary.title })}</h2>
        {desk.may("export_orders") && (
          <ActButton label={t("order.csv")} act={() => saveCsv(desk)} onError={setError} />
        )}
        <button type="button" class="plain" onClick={() => print()}>
          {t("summary.print")}
        </button>
      </header>
      {started_at > 0 && (
        <p class="help">
          {dateTime(started_at)} – {ended_at > 0 ? timeOfDay(ended_at) : t("summary.running")} ·{" "}
          {span(Math.max(0, end - started_at))}
        </p>
      )}
      <Failure error={error} />
    </>
  );
}

/** What was sold, and who was there. */
function Headlines({ desk, summary }: { desk: Desk; summary: ShowSummary }) {
  return (
    <>
      <Sold desk={desk} summary={summary} />
      <Crowd summary={summary} />
    </>
  );
}

function Sold({ desk, summary }: { desk: Desk; summary: ShowSummary }) {
  const { orders, units, buyers, avg_online, by_status } = summary;
  const known = avg_online > 0 && buyers <= avg_online; // else most came and went between samples
  const conversion = known ? perMille((1_000 * buyers) / avg_online) : "–";
  const amount = amountsText(summary.amounts) || "–";
  return (
    <dl class="headlines">
      {desk.may("see_money") && (
        <Headline big name="amount" label={t("kpi.amount")} value={amount} />
      )}
      <Headline name="orders" label={t("summary.orders")} value={count(orders)} />
      <Headline name="units" label={t("summary.units")} value={count(units)} />
      <Headline name="buyers" label={t("summary.buyers")} value={count(buyers)} />
      <Headline name="conversion" label={t("summary.conversion")} value={conversion} />
      {(["expired", "refunded"] as const).map((status) => (
        <Headline
          key={status}
          name={status}
          label={t(`claim.${status}`)}
          value={count(by_status[status] ?? 0)}
        />
      ))}
    </dl>
  );
}

function Crowd({ summary }: { summary: ShowSummary }) {
  const { peak_online, peak_at, avg_online, likes, lines, claims } = summary;
  const when = peak_at > 0 ? timeOfDay(peak_at) : "";
  return (
    <dl class="headlines">
      <Headline name="peak" label={t("summary.peak")} value={people(peak_online)} note={when} />
      <Headline name="average" label={t("summary.average")} value={people(avg_online)} />
      <Headline name="likes" label={t("kpi.likes")} value={count(likes)} />
      <Headline name="lines" label={t("summary.lines")} value={count(lines)} />
      <Headline name="claims" label={t("summary.claims")} value={count(claims)} />
    </dl>
  );
}

/** 0 people online: nobody counted them. */
function people(counted: number): string {
  return counted > 0 ? count(counted) : "–";
}

interface HeadlineProps {
  label: string;
  value: string;
  name: string;
  note?: string;
  big?: boolean;
}

function Headline({ label, value, name, note, big }: HeadlineProps) {
  return (
    <div class={big ? "headline headline-big" : "headline"} data-headline={name}>
      <dt>{label}</dt>
      <dd>
        {value} {note && <small>{note}</small>}
      </dd>
    </div>
  );
}

function SaleTable({ desk, sales }: { desk: Desk; sales: readonly SaleSummary[] }) {
  return (
    <TableBox label={t("summary.sales")}>
      <table>
        <thead>
          <tr>
            <th>{t("audit.pool")}</th>
            <th class="number">{t("order.price")}</th>
            <th class="number">{t("summary.stock")}</th>
            <th class="number">{t("summary.sold")}</th>
            <th class="number">{t("summary.sell_through")}</th>
            <th class="number">{t("summary.sold_out")}</th>
            <th class="number">{t("summary.orders")}</th>
            {desk.may("see_money") && <th class="number">{t("order.amount")}</th>}
          </tr>
        </thead>
        <tbody>
          {sales.map((sale) => (
            <SaleRow key={sale.sale} desk={desk} sale={sale} />
          ))}
        </tbody>
      </table>
    </TableBox>
  );
}

function SaleRow({ desk, sale }: { desk: Desk; sale: SaleSummary }) {
  const known = desk.sales.value.find((one) => one.sale === sale.sale);
  const through = sale.offered > 0 ? (1_000 * sale.units) / sale.offered : 0;
  const after = sale.sold_out_after_ms;
  return (
    <tr data-sold={sale.sale}>
      <td class="wraps">{known ? `${known.product_title} · ${known.sku_title}` : sale.sale}</td>
      <td class="number">{known ? money(known.price, known.currency) : "–"}</td>
      <td class="number">{count(sale.offered)}</td>
      <td class="number">{count(sale.units)}</td>
      <td class="number share">
        <i aria-hidden="true" style={{ transform: `scaleX(${Math.min(1, through / 1_000)})` }} />
        {perMille(through)}
      </td>
      <td class="number">{after >= 0 ? durationText(after) : "–"}</td>
      <td class="number">{count(sale.orders)}</td>
      {desk.may("see_money") && <td class="number">{money(sale.amount, sale.currency)}</td>}
    </tr>
  );
}

const MINUTE_MS = 60_000;

/** Seconds with one digit: flash sales are over in some of them. */
function durationText(ms: number): string {
  return ms < MINUTE_MS ? t("summary.seconds", { n: (ms / 1_000).toFixed(1) }) : span(ms);
}

/** A new show like this one. */
function Again({ desk }: { desk: Desk }) {
  const show = desk.show.value;
  if (!show) return null;
  return (
    <details class="again">
      <summary>{t("summary.again")}</summary>
      <ActForm
        label={t("show.create")}
        act={async (values) => {
          const next = await createShow(showFields(values));
          location.assign(`/host/${next.show}`);
        }}
      >
        <ShowFieldset show={{ ...show, starts_at: 0 }} />
      </ActForm>
    </details>
  );
}
