/** What PostgreSQL has: the orders table with its CSV, and the log of host acts. */

import { useEffect, useState } from "preact/hooks";
import { t } from "../i18n";
import type { ApiError, Order } from "../ui/api";
import { dateTime, money } from "../ui/format";
import { attempt, Failure } from "../ui/parts";
import { type Desk, ORDERS_PAGE } from "./desk";
import { ActButton } from "./form";
import type { Act } from "./types";

export function Books({ desk }: { desk: Desk }) {
  return (
    <div class="books">
      <Orders desk={desk} />
      <Acts desk={desk} />
    </div>
  );
}

const STATUSES = ["confirmed", "paid", "fulfilled", "expired", "cancelled", "refunded"] as const;

function Orders({ desk }: { desk: Desk }) {
  const [rows, setRows] = useState<readonly Order[]>([]);
  const [status, setStatus] = useState("");
  const [buyer, setBuyer] = useState("");
  const [error, setError] = useState<ApiError | null>(null);
  const load = async (after: number) => {
    const next = await desk.orders({ after, status, buyer: buyer.trim() });
    setRows(after === 0 ? next : [...rows, ...next]);
  };
  useEffect(() => {
    attempt(() => load(0)).then(setError);
  }, [status, buyer, desk.orderNews.value]);
  return (
    <section class="card">
      <header class="row">
        <h2>{t("order.title")}</h2>
        <select
          aria-label={t("order.status")}
          value={status}
          onChange={(event) => setStatus(event.currentTarget.value)}
        >
          <option value="">{t("order.status_all")}</option>
          {STATUSES.map((name) => (
            <option key={name} value={name}>
              {t(`claim.${name}`)}
            </option>
          ))}
        </select>
        <input
          aria-label={t("order.buyer")}
          placeholder={t("order.buyer")}
          value={buyer}
          maxLength={64}
          onChange={(event) => setBuyer(event.currentTarget.value)}
        />
        <ActButton label={t("refresh")} act={() => load(0)} onError={setError} />
        <ActButton label={t("order.csv")} act={() => saveCsv(desk)} onError={setError} />
      </header>
      <Failure error={error} />
      {rows.length === 0 ? <p class="empty">{t("order.none")}</p> : <Table rows={rows} />}
      {rows.length > 0 && rows.length % ORDERS_PAGE === 0 && (
        <ActButton
          label={t("more")}
          act={() => load(rows.at(-1)?.order_id ?? 0)}
          onError={setError}
        />
      )}
    </section>
  );
}

async function saveCsv(desk: Desk): Promise<void> {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await desk.csv());
  link.download = `orders-${desk.id}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function Table({ rows }: { rows: readonly Order[] }) {
  return (
    <div class="table">
      <table>
        <thead>
          <tr>
            <th>{t("order.id")}</th>
            <th>{t("order.time")}</th>
            <th>{t("order.buyer")}</th>
            <th>{t("order.item")}</th>
            <th class="number">{t("order.quantity")}</th>
            <th class="number">{t("order.price")}</th>
            <th class="number">{t("order.amount")}</th>
            <th>{t("order.status")}</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.order_id} data-order={row.order_id}>
              <td>{row.order_id}</td>
              <td>{dateTime(row.confirmed_at)}</td>
              <td>{row.buyer}</td>
              <td>
                {row.product_title} · {row.sku_title}
              </td>
              <td class="number">{row.quantity}</td>
              <td class="number">{money(row.price, row.currency)}</td>
              <td class="number">{money(row.price * row.quantity, row.currency)}</td>
              <td>
                <b class={`status status-${row.status}`}>{t(`claim.${row.status}`)}</b>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Acts({ desk }: { desk: Desk }) {
  const [acts, setActs] = useState<readonly Act[]>([]);
  const [error, setError] = useState<ApiError | null>(null);
  const load = async () => setActs(await desk.acts());
  const open = (event: Event) => {
    if ((event.currentTarget as HTMLDetailsElement).open) attempt(load).then(setError);
  };
  return (
    <details class="card" onToggle={open}>
      <summary>{t("acts.title")}</summary>
      <Failure error={error} />
      {acts.length === 0 && <p class="empty">{t("acts.none")}</p>}
      <ol class="acts">
        {acts.map((act) => (
          <li key={act.act}>
            <time>{dateTime(act.at)}</time> <b>{act.actor}</b> {act.action}{" "}
            <code>{JSON.stringify(act.detail)}</code>
          </li>
        ))}
      </ol>
    </details>
  );
}
