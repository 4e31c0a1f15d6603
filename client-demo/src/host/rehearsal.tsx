/** Trying a sale out on synthetic people, in a shadow show that nobody sees. */

import { useEffect, useState } from "preact/hooks";
import { type Key, lang, t } from "../i18n";
import type { ApiError } from "../ui/api";
import { count, timeOfDay } from "../ui/format";
import { attempt, Failure } from "../ui/parts";
import type { Desk } from "./desk";
import { ActButton, ActForm, type Values } from "./form";
import { Leaf } from "./leaf";
import { CURVE, figuresOf, type Summary, stockCurve } from "./rehearsed";
import type { Rehearsal } from "./types";

const SIZES = [200, 500, 2_000] as const;
const SIZE_BESIDE_LIVE = 500; // REHEARSAL_LIVE_MAX of the server
const SECONDS = 20;
const POLL_MS = 1_000;

export function RehearsalCard({ desk }: { desk: Desk }) {
  const [rows, setRows] = useState<readonly Rehearsal[]>([]);
  const [error, setError] = useState<ApiError | null>(null);
  const load = async () => setRows(await desk.rehearsals());
  const [newest] = rows;
  const runs = newest !== undefined && newest.ended_at === 0;
  useEffect(() => {
    if (!runs) return undefined;
    const timer = setInterval(() => attempt(load).then(setError), POLL_MS);
    return () => clearInterval(timer);
  }, [runs]);
  return (
    <Leaf title={t("rehearsal.title")} load={load}>
      <p class="help">{t("rehearsal.about")}</p>
      <Failure error={error} />
      {!runs && <Order desk={desk} onBegun={load} />}
      {newest && <Newest key={newest.rehearsal} desk={desk} row={newest} onMoved={load} />}
      {rows.length > 1 && <Earlier desk={desk} rows={rows.slice(1)} />}
    </Leaf>
  );
}

function Order({ desk, onBegun }: { desk: Desk; onBegun: () => Promise<void> }) {
  const sales = desk.sales.value;
  if (sales.length === 0) return <p class="empty">{t("sale.none")}</p>;
  const isOn = desk.status.value === "live" || desk.status.value === "paused";
  const sizes = SIZES.filter((size) => !isOn || size <= SIZE_BESIDE_LIVE);
  const begin = async (values: Values) => {
    await desk.rehearse(orderOf(values));
    await onBegun();
  };
  return (
    <ActForm class="inline" label={t("rehearsal.begin")} act={begin}>
      <label class="field">
        <span>{t("rehearsal.sale")}</span>
        <select name="sale" required>
          {sales.map((sale) => (
            <option key={sale.sale} value={sale.sale}>
              {sale.product_title} · {sale.sku_title}
            </option>
          ))}
        </select>
      </label>
      <label class="field">
        <span>{t("rehearsal.buyers")}</span>
        <select name="buyers">
          {sizes.map((size) => (
            <option key={size} value={size}>
              {count(size)}
            </option>
          ))}
        </select>
      </label>
    </ActForm>
  );
}

function orderOf(values: Values): object {
  const buyers = Number(values.buyers);
  return { sale: Number(values.sale), buyers, seconds: SECONDS };
}

interface NewestProps {
  desk: Desk;
  row: Rehearsal;
  onMoved: () => Promise<void>;
}

function Newest({ desk, row, onMoved }: NewestProps) {
  const [summary, setSummary] = useState<Summary | null>(null);
  const over = row.ended_at > 0;
  useEffect(() => {
    if (over) attempt(async () => setSummary((await desk.rehearsal(row.rehearsal)).summary));
  }, [over]);
  const stop = async () => {
    await desk.stopRehearsal(row.rehearsal);
    await onMoved();
  };
  if (!over) return <Running row={row} stop={stop} />;
  return (
    <>
      <Verdict row={row} />
      {summary && <Found summary={summary} />}
      {row.verdict && (
        <p class="row">
          <SaveReport desk={desk} row={row} />
        </p>
      )}
    </>
  );
}

function Running({ row, stop }: { row: Rehearsal; stop: () => Promise<void> }) {
  const { phase, share, held, confirmed } = row.progress;
  return (
    <div data-rehearsal={row.status}>
      <p class="row">
        <b>{t(`rehearsal.phase.${phase || "prepare"}` as Key)}</b>
        <progress value={share} max={1} />
        <ActButton class="danger" label={t("rehearsal.stop")} confirms act={stop} />
      </p>
      <p class="help">
        {t("rehearsal.so_far", { held: count(held), confirmed: count(confirmed) })}
      </p>
    </div>
  );
}

function Verdict({ row }: { row: Rehearsal }) {
  const good = row.status === "done" && row.verdict === "pass";
  const said = row.verdict ? t(`rehearsal.verdict.${row.verdict}` as Key) : "";
  const why = row.reason ? t(`rehearsal.reason.${row.reason}` as Key) : "";
  return (
    <p class={good ? "verdict" : "verdict verdict-bad"} data-rehearsal={row.status}>
      {[why, said].filter((part) => part !== "").join(" · ")}{" "}
      <small>{timeOfDay(row.ended_at)}</small>
    </p>
  );
}

function Found({ summary }: { summary: Summary }) {
  const curve = stockCurve(summary);
  const { findings, scope } = summary.audit;
  return (
    <>
      <div class="table found">
        <table>
          <tbody>
            {figuresOf(summary).map(({ label, value }) => (
              <tr key={label}>
                <td>{t(label)}</td>
                <td class="number">{value}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {scope === "full" && findings.length === 0 && <p>{t("rehearsal.audit_ok")}</p>}
      {findings.map((found) => (
        <p key={found.name} class="verdict-bad">
          {lang.value === "zh" ? found.zh : found.en} ({count(found.count)})
        </p>
      ))}
      {curve && (
        <svg
          class="curve"
          viewBox={`0 0 ${CURVE.width} ${CURVE.height}`}
          role="img"
          aria-label={t("rehearsal.curve")}
        >
          <title>{t("rehearsal.curve")}</title>
          <polyline points={curve} fill="none" stroke="currentColor" stroke-width="2" />
        </svg>
      )}
    </>
  );
}

function SaveReport({ desk, row }: { desk: Desk; row: Rehearsal }) {
  return (
    <ActButton
      class="tiny"
      label={t("rehearsal.report")}
      act={async () => {
        const link = document.createElement("a");
        link.href = URL.createObjectURL(await desk.rehearsalReport(row.rehearsal));
        link.download = `rehearsal-${desk.id}-${row.rehearsal}.html`;
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
      }}
    />
  );
}

function Earlier({ desk, rows }: { desk: Desk; rows: readonly Rehearsal[] }) {
  return (
    <details>
      <summary>{t("rehearsal.earlier")}</summary>
      {rows.map((row) => (
        <div key={row.rehearsal} class="row">
          <Verdict row={row} />
          {row.verdict && <SaveReport desk={desk} row={row} />}
        </div>
      ))}
    </details>
  );
}
