/** The orders table: filters, what a host does with an order, its history, the CSV. */

import { useEffect, useState } from "preact/hooks";
import { t } from "../i18n";
import type { ApiError, Order } from "../ui/api";
import { dateTime, money, timeOfDay } from "../ui/format";
import { attempt, Failure } from "../ui/parts";
import { type Desk, ORDERS_PAGE } from "./desk";
import { ActButton } from "./form";
import type { OrderDetail, OrderVerb } from "./types";

const STATUSES = ["confirmed", "paid", "fulfilled", "expired", "cancelled", "refunded"] as const;

export function Orders({ desk }: { desk: Desk }) {
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
      {rows.length === 0 ? (
        <p class="empty">{t("order.none")}</p>
      ) : (
        <Table desk={desk} rows={rows} onMoved={() => load(0)} />
      )}
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

interface TableProps {
  desk: Desk;
  rows: readonly Order[];
  onMoved: () => Promise<void>;
}

function Table({ desk, rows, onMoved }: TableProps) {
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
            <th>{t("order.act")}</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <Row key={row.order_id} desk={desk} row={row} onMoved={onMoved} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** What a host may do with an order in this state (server/domain/order.py). */
const VERBS: Readonly<Partial<Record<Order["status"], readonly OrderVerb[]>>> = {
  confirmed: ["cancel"],
  paid: ["fulfil", "refund"],
};

function Row({ desk, row, onMoved }: { desk: Desk; row: Order; onMoved: () => Promise<void> }) {
  const [detail, setDetail] = useState<OrderDetail | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const move = (verb: OrderVerb) => async () => {
    await desk.moveOrder(row.order_id, verb);
    setDetail(null);
    await onMoved();
  };
  const unfold = async () => setDetail(detail ? null : await desk.order(row.order_id));
  return (
    <>
      <tr data-order={row.order_id}>
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
        <td class="verbs">
          {VERBS[row.status]?.map((verb) => (
            <ActButton
              key={verb}
              class="tiny"
              label={t(`order.${verb}`)}
              confirms={verb !== "fulfil"}
              act={move(verb)}
              onError={setError}
            />
          ))}
          <ActButton class="tiny" label={t("order.history")} act={unfold} onError={setError} />
        </td>
      </tr>
      {(detail || error) && (
        <tr>
          <td colSpan={9}>
            <Failure error={error} />
            {detail && <History detail={detail} />}
          </td>
        </tr>
      )}
    </>
  );
}

/** Every step of an order and its payments, oldest first. */
function History({ detail }: { detail: OrderDetail }) {
  return (
    <ol class="acts">
      <li>
        <time>{dateTime(detail.confirmed_at)}</time> {t("claim.confirmed")}
        {detail.pay_by > 0 && <> · {t("claim.pay_by", { time: timeOfDay(detail.pay_by) })}</>}
      </li>
      {detail.moves.map((step) => (
        <li key={step.status_to}>
          <time>{dateTime(step.at)}</time> {t(`claim.${step.status_to}`)} ·{" "}
          {t(`order.reason.${step.reason}`)} {step.actor}
        </li>
      ))}
      {detail.payments.map((payment) => (
        <li key={payment.payment}>
          <time>{dateTime(payment.created_at)}</time> {t("order.payments")} {payment.provider} ·{" "}
          {money(payment.amount, payment.currency)} · {t(`payment.${payment.status}`)}{" "}
          {payment.reason}
        </li>
      ))}
    </ol>
  );
}
