/** The show's numbers over time: small charts with one cursor, and the same as a table. */

import { type Signal, useSignal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { type Key, lang, t } from "../i18n";
import { count, money, parseMoney, timeOfDay } from "../ui/format";
import type { Desk } from "./desk";
import { axisTime, compact, compactMoney, rough } from "./figures";
import type { Line, Marks, Plot } from "./plot";
import { type Curve, type Curves, currencies, curves, newest, stacked } from "./series";
import { TableBox } from "./table-box";

interface Chart {
  name: "online" | "talk" | "claims" | "stock" | "orders" | "money";
  lines: readonly (Line & { name: Curve })[];
  stacked?: boolean;
}

const CHARTS: readonly Chart[] = [
  { name: "online", lines: [{ name: "online", fill: "soft" }] },
  {
    name: "talk",
    lines: [
      { name: "likes", fill: "none" },
      { name: "lines", fill: "none" },
    ],
  },
  { name: "claims", lines: [{ name: "claims", fill: "soft" }] },
  {
    name: "stock",
    lines: [
      { name: "left", fill: "solid" },
      { name: "held", fill: "solid" },
      { name: "sold", fill: "solid" },
    ],
    stacked: true,
  },
  { name: "orders", lines: [{ name: "orders", fill: "soft" }] },
  { name: "money", lines: [{ name: "amount", fill: "soft" }] },
];

const TOP_MIN = "4"; // people, units, or whole units of a currency
const SPANS = [5, 15, 0] as const; // minutes, 0: the whole show
const ROWS = 10;

/** Those that the token allows to see. */
function chartsFor(desk: Desk): readonly Chart[] {
  return CHARTS.filter(({ name }) => name !== "money" || desk.may("see_money"));
}

export function Charts({ desk }: { desk: Desk }) {
  const isOver = desk.status.value === "ended";
  const [minutes, setMinutes] = useState<number>(SPANS[0]);
  const cursor = useSignal<number | null>(null);
  const series = desk.numbers.series.reading.value?.value;
  const pulse = desk.numbers.pulse.reading.value?.value ?? null;
  const last = series?.samples.at(-1);
  const currency = currencies(last?.amounts ?? {})[0] ?? "CNY";
  const from =
    minutes > 0 && !isOver ? Math.max(last?.at ?? 0, pulse?.at ?? 0) - minutes * 60_000 : 0;
  const shown = series ? curves(series, pulse, currency, from) : null;
  return (
    <section class="card charts" aria-labelledby="charts-title">
      <header class="row">
        <h2 id="charts-title">{t(isOver ? "chart.over" : "chart.title")}</h2>
        {shown && <Moment cursor={cursor} at={shown.at} />}
        {!isOver && <Spans minutes={minutes} onChoose={setMinutes} />}
      </header>
      {!shown || shown.at.length < 2 ? (
        <p class="empty">{t("chart.none")}</p>
      ) : (
        <Drawn desk={desk} shown={shown} currency={currency} cursor={cursor} />
      )}
    </section>
  );
}

function Spans({ minutes, onChoose }: { minutes: number; onChoose: (minutes: number) => void }) {
  return (
    <fieldset class="segments" aria-label={t("chart.span")}>
      {SPANS.map((span) => (
        <button
          key={span}
          type="button"
          aria-pressed={span === minutes}
          onClick={() => onChoose(span)}
        >
          {span > 0 ? t("chart.minutes", { n: span }) : t("chart.all")}
        </button>
      ))}
    </fieldset>
  );
}

/** The time under the pointer. */
function Moment({ cursor, at }: { cursor: Signal<number | null>; at: readonly number[] }) {
  const moment = cursor.value === null ? undefined : at[cursor.value];
  return <time class="charts-moment">{moment ? timeOfDay(moment * 1_000) : ""}</time>;
}

interface DrawnProps {
  desk: Desk;
  shown: Curves;
  currency: string;
  cursor: Signal<number | null>;
}

function Drawn({ desk, shown, currency, cursor }: DrawnProps) {
  const [plot, setPlot] = useState<typeof Plot | null>(null);
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    import("./plot").then(
      (loaded) => setPlot(() => loaded.Plot),
      () => setFailed(true),
    );
  }, []);
  const marks = marksOf(desk, shown);
  return (
    <>
      {failed && <p class="empty">{t("chart.unavailable")}</p>}
      <div class="charts-grid">
        {plot &&
          chartsFor(desk).map((chart) => (
            <OneChart
              key={`${chart.name} ${lang.value} ${currency}`}
              {...{ chart, plot, shown, currency, cursor, marks }}
            />
          ))}
      </div>
      <p class="charts-key">
        <span class="key-sale">{t("chart.sale")}</span>
        <span class="key-pin">{t("chart.pin")}</span>
      </p>
      <AsTable desk={desk} shown={shown} currency={currency} />
    </>
  );
}

/** Sales that were open, and the moments at which a product was pinned. */
function marksOf(desk: Desk, { at }: Curves): Marks {
  const end = at.at(-1) ?? 0;
  const opened = desk.sales.value.filter((sale) => sale.opens_at > 0);
  const pins = desk.numbers.pins.reading.value?.value ?? [];
  return {
    sales: opened.map((sale) => ({
      from: sale.opens_at / 1_000,
      to: sale.closes_at > 0 ? Math.min(sale.closes_at / 1_000, end) : end,
    })),
    pins: pins.map((pin) => pin.since / 1_000),
  };
}

interface OneChartProps {
  chart: Chart;
  plot: typeof Plot;
  shown: Curves;
  currency: string;
  cursor: Signal<number | null>;
  marks: Marks;
}

function OneChart({ chart, plot, shown, currency, cursor, marks }: OneChartProps) {
  const box = useRef<HTMLDivElement>(null);
  const drawn = useRef<Plot | null>(null);
  useEffect(() => {
    if (!box.current) return undefined;
    const label = (value: number) =>
      chart.name === "money" ? compactMoney(value, currency) : compact(value);
    const made = new plot({
      box: box.current,
      lines: chart.lines,
      label,
      topMin: chart.name === "money" ? parseMoney(TOP_MIN, currency) : Number(TOP_MIN),
      timeLabel: (at, step) => axisTime(at * 1_000, step),
      onCursor: (index) => {
        cursor.value = index;
      },
    });
    drawn.current = made;
    const fitting = new ResizeObserver(([entry]) => made.fit(entry?.contentRect.width ?? 0));
    fitting.observe(box.current);
    return () => {
      fitting.disconnect();
      made.destroy();
    };
  }, [plot]);
  useEffect(() => {
    const columns = chart.lines.map(({ name }) => shown[name]);
    const span: [number, number] = [shown.at[0] ?? 0, shown.at.at(-1) ?? 1];
    drawn.current?.show(shown.at, chart.stacked ? stacked(columns) : columns, span, marks);
  });
  return (
    <figure class="chart" data-chart={chart.name}>
      <figcaption>
        {chart.lines.map(({ name }) => (
          <span key={name} class={`curve-${name}`}>
            <i aria-hidden="true" />
            {t(`chart.${name}`)} <Value {...{ cursor, currency, name, shown }} />
          </span>
        ))}
      </figcaption>
      <div ref={box} class="chart-box" aria-hidden="true" />
    </figure>
  );
}

interface ValueProps {
  cursor: Signal<number | null>;
  name: Curve;
  shown: Curves;
  currency: string;
}

/** Under the pointer; else the newest there is. */
function Value({ cursor, name, shown, currency }: ValueProps) {
  const index = cursor.value;
  const value = index === null ? newest(shown, name) : (shown[name][index] ?? null);
  return <b>{valueText(name, value, currency)}</b>;
}

function valueText(name: Curve, value: number | null, currency: string): string {
  if (value === null) return "–";
  if (name === "amount") return money(value, currency);
  const isRate = name === "likes" || name === "lines" || name === "claims";
  return isRate ? rough(value) : count(value);
}

/** The newest rows, for those who do not see charts. */
function AsTable({ desk, shown, currency }: Omit<DrawnProps, "cursor">) {
  const names = chartsFor(desk).flatMap(({ lines }) => lines.map(({ name }) => name));
  const known = shown.at.map((at, row) => ({ at, row })).filter(({ row }) => isKnown(shown, row));
  return (
    <details>
      <summary>{t("chart.table")}</summary>
      <TableBox label={t("chart.table")}>
        <table>
          <thead>
            <tr>
              <th>{t("chart.time")}</th>
              {names.map((name) => (
                <th key={name} class="number">
                  {t(`chart.${name}` satisfies Key)}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {known.slice(-ROWS).map(({ at, row }) => (
              <tr key={at}>
                <td>{timeOfDay(at * 1_000)}</td>
                {names.map((name) => (
                  <td key={name} class="number">
                    {valueText(name, shown[name][row] ?? null, currency)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </TableBox>
    </details>
  );
}

function isKnown(shown: Curves, row: number): boolean {
  return shown.online[row] !== null;
}
