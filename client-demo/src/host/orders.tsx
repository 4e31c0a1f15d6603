/** The orders table: filters, what a host does with an order, its history, the CSV. */

import { useEffect, useRef, useState } from "preact/hooks";
import { t } from "../i18n";
import type { ApiError, Order } from "../ui/api";
import { dateTime, money, timeOfDay } from "../ui/format";
import { attempt, Failure } from "../ui/parts";
import { type Desk, ORDERS_PAGE, type OrderFilter } from "./desk";
import { moment } from "./figures";
import { ActButton } from "./form";
import { inPlace, refreshed, searchOf, unseen } from "./order-rows";
import { TableBox } from "./table-box";
import type { OrderDetail, OrderVerb } from "./types";

const STATUSES = ["confirmed", "paid", "fulfilled", "expired", "cancelled", "refunded"] as const;

export function Orders({ desk }: { desk: Desk }) {
  const [search, setSearch] = useState("");
  const [sale, setSale] = useState("");
  const [status, setStatus] = useState("");
  const [error, setError] = useState<ApiError | null>(null);
  const list = useOrders(desk, { ...searchOf(search), sale, status }, setError);
  const { rows, fresh, reload } = list;
  return (
    <section class="card orders">
      <header class="row">
        <h2>{t("order.title")}</h2>
        <SearchBox onSearch={setSearch} />
        <SaleFilter desk={desk} sale={sale} onChoose={setSale} />
        <StatusFilter status={status} onChoose={setStatus} />
        <ActButton label={t("refresh")} act={reload} onError={setError} />
        <ActButton label={t("order.csv")} act={() => saveCsv(desk)} onError={setError} />
      </header>
      <Failure error={error} />
      {fresh > 0 && (
        <ActButton
          class="fresh"
          label={t("order.fresh", { n: fresh })}
          act={reload}
          onError={setError}
        />
      )}
      {rows.length === 0 ? (
        <p class="empty">{t("order.none")}</p>
      ) : (
        <div {...list.reading}>
          <Table desk={desk} rows={rows} onMoved={reload} />
        </div>
      )}
      {list.hasMore && <ActButton label={t("more")} act={list.more} onError={setError} />}
    </section>
  );
}

/** The rows of a filter. While somebody is in the table, new ones are only counted (`fresh`). */
function useOrders(desk: Desk, filter: OrderFilter, onError: (error: ApiError | null) => void) {
  const [rows, setRows] = useState<readonly Order[]>([]);
  const [fresh, setFresh] = useState(0);
  const [hasMore, setHasMore] = useState(false);
  const isRead = useRef(false);
  const wanted = JSON.stringify(filter);
  const newestWanted = useRef(wanted);
  newestWanted.current = wanted;
  const newestRows = useRef(rows);
  newestRows.current = rows;
  const load = async (keep: boolean) => {
    const page = await desk.orders(filter);
    if (newestWanted.current !== wanted) return; // Another filter was chosen meanwhile.
    const stays = keep && isRead.current;
    setFresh(stays ? unseen(rows, page) : 0);
    setRows((old) =>
      stays ? inPlace(old, page) : keep ? refreshed(old, page, ORDERS_PAGE) : page,
    );
    if (!keep) setHasMore(page.length === ORDERS_PAGE);
  };
  const more = async () => {
    const last = rows.at(-1)?.order_id;
    const page = await desk.orders(filter, last);
    const isNext = newestRows.current.at(-1)?.order_id === last;
    if (newestWanted.current !== wanted || !isNext) return;
    setRows((old) => [...old, ...page]);
    setHasMore(page.length === ORDERS_PAGE);
  };
  useEffect(() => {
    attempt(() => load(false)).then(onError);
  }, [wanted]);
  useEffect(() => {
    if (desk.orderNews.value > 0) attempt(() => load(true)).then(onError);
  }, [desk.orderNews.value]);
  const reads = (is: boolean) => () => {
    isRead.current = is;
  };
  const reading = { onPointerEnter: reads(true), onPointerLeave: reads(false) };
  return { rows, fresh, hasMore, more, reading, reload: () => load(false) };
}

const TYPING_MS = 300;

/** Searches when typing pauses. */
function SearchBox({ onSearch }: { onSearch: (text: string) => void }) {
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  return (
    <input
      type="search"
      class="search"
      aria-label={t("order.search")}
      placeholder={t("order.search")}
      maxLength={64}
      onInput={(event) => {
        const text = event.currentTarget.value;
        clearTimeout(timer.current);
        timer.current = setTimeout(() => onSearch(text), TYPING_MS);
      }}
    />
  );
}

interface FilterProps {
  desk: Desk;
  sale: string;
  onChoose: (value: string) => void;
}

function SaleFilter({ desk, sale, onChoose }: FilterProps) {
  return (
    <select
      aria-label={t("order.sale")}
      value={sale}
      onChange={(event) => onChoose(event.currentTarget.value)}
    >
      <option value="">{t("order.sale_all")}</option>
      {desk.sales.value.map((one) => (
        <option key={one.sale} value={String(one.sale)}>
          {one.product_title} · {one.sku_title} #{one.sale}
        </option>
      ))}
    </select>
  );
}

function StatusFilter({
  status,
  onChoose,
}: Omit<FilterProps, "desk" | "sale"> & { status: string }) {
  return (
    <select
      aria-label={t("order.status")}
      value={status}
      onChange={(event) => onChoose(event.currentTarget.value)}
    >
      <option value="">{t("order.status_all")}</option>
      {STATUSES.map((name) => (
        <option key={name} value={name}>
          {t(`claim.${name}`)}
        </option>
      ))}
    </select>
  );
}

export async function saveCsv(desk: Desk): Promise<void> {
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
    <TableBox label={t("order.title")}>
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
    </TableBox>
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
        <td title={dateTime(row.confirmed_at)}>{moment(row.confirmed_at)}</td>
        <td>{row.buyer}</td>
        <td>
          {row.product_title} · {row.sku_title}
        </td>
        <td class="number">{row.quantity}</td>
        <td class="number">{money(row.price, row.currency)}</td>
        <td class="number">{money(row.price * row.quantity, row.currency)}</td>
        <td>
          <b class={`status status-${isUnpaid(row) ? "unpaid" : row.status}`}>
            {t(`claim.${row.status}`)}
          </b>
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

/** Confirmed, but only until its time to pay is over. */
function isUnpaid(row: Order): boolean {
  return row.status === "confirmed" && row.pay_by > 0;
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
