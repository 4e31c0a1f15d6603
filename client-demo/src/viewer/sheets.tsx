/** The sheets over the viewer page; my orders and the sign-in are here. */

import { useEffect, useState } from "preact/hooks";
import { t, textOf } from "../i18n";
import type { ClaimRecord } from "../live";
import { NAME_CHARS_MAX } from "../live/limits";
import type { ApiError, Order } from "../ui/api";
import { money, span, timeOfDay } from "../ui/format";
import { attempt, Failure, Picture, Sheet } from "../ui/parts";
import { BuySheet } from "./buy-sheet";
import { DanmakuSettings } from "./danmaku-settings";
import { GoodsSheet } from "./goods";
import { cancelOrder, myOrders, payOrder } from "./orders";
import { live, sheet, showId, signInAs, signOut, state, token, values } from "./page";

const close = () => {
  sheet.value = null;
};

export function Sheets() {
  switch (sheet.value) {
    case "goods":
      return <GoodsSheet onClose={close} />;
    case "buy":
      return <BuySheet onClose={close} />;
    case "danmaku":
      return <DanmakuSettings onClose={close} />;
    case "orders":
      return <Orders />;
    case "sign_in":
      return <SignIn />;
    default:
      return null;
  }
}

function Orders() {
  const [rows, setRows] = useState<Order[]>([]);
  const [error, setError] = useState<ApiError | null>(null);
  const { claims, me } = state.value;
  const moved = claims.map((record) => record.answer?.status ?? "").join();
  useEffect(() => {
    if (!token.value) return;
    attempt(async () => setRows(await myOrders(showId, token.value))).then(setError);
  }, [moved, me?.user]);
  const stored = new Set(rows.map((row) => row.claim_id));
  const pending = claims.filter((record) => !stored.has(record.claim_id)).reverse();
  const signedOut = me === null && !token.value;
  return (
    <Sheet title={t("orders")} onClose={close}>
      <Failure error={error} />
      {signedOut && <p class="empty">{t("orders.sign_in")}</p>}
      {!signedOut && rows.length + pending.length === 0 && <p class="empty">{t("orders.empty")}</p>}
      <ol class="orders">
        {pending.map((record) => (
          <ClaimRow key={record.claim_id} record={record} />
        ))}
        {rows.map((row) => (
          <OrderRow key={row.claim_id} row={row} live={liveOf(claims, row)} />
        ))}
      </ol>
    </Sheet>
  );
}

function liveOf(claims: readonly ClaimRecord[], row: Order): ClaimRecord | undefined {
  return claims.find((record) => record.claim_id === row.claim_id);
}

/** A claim PostgreSQL does not have (yet). */
function ClaimRow({ record }: { record: ClaimRecord }) {
  const status = record.phase === "answered" ? record.answer?.status : record.phase;
  return (
    <li class="order" data-status={status}>
      <ProductPicture product={values.value.sales[record.sale]?.product ?? 0} title="" />
      <ItemName sale={record.sale} />
      <p>
        {t("claim.units", { n: record.quantity })} · {timeOfDay(record.made_at)}
      </p>
      <b class={`status status-${status}`}>{t(`claim.${status ?? "unknown"}`)}</b>
      {record.phase === "refused" && record.refusal && <small>{textOf(record.refusal)}</small>}
    </li>
  );
}

function OrderRow({ row, live: record }: { row: Order; live: ClaimRecord | undefined }) {
  const told = record?.answer?.status;
  const status = told && told !== "held" && told !== "not_seen" ? told : row.status;
  const unpaid = status === "confirmed" && row.pay_by > 0;
  return (
    <li class="order" data-status={status}>
      <ProductPicture product={row.product} title={row.product_title} />
      <h3>
        {row.product_title} <span>{row.sku_title}</span>
      </h3>
      <p>
        {t("claim.units", { n: row.quantity })} · {money(row.price * row.quantity, row.currency)} ·{" "}
        {timeOfDay(row.confirmed_at)}
      </p>
      <b class={`status status-${unpaid ? "unpaid" : status}`}>
        {t(unpaid ? "payment.created" : `claim.${status}`)}
      </b>
      <small>{t("claim.number", { n: row.order_id })}</small>
      {unpaid && <Unpaid row={row} />}
    </li>
  );
}

/** An order that waits for its payment: how long still, the way to pay, the way out. */
function Unpaid({ row }: { row: Order }) {
  const [error, setError] = useState<ApiError | null>(null);
  const left = row.pay_by - live.now.value;
  const act = (work: typeof payOrder) => async () => {
    setError(await attempt(() => work(showId, token.value, row.order_id)));
  };
  if (left <= 0) return <small>{t("claim.pay_by", { time: timeOfDay(row.pay_by) })}</small>;
  return (
    <div class="unpaid">
      <small role="timer">{t("claim.pay_left", { time: span(left) })}</small>
      <button type="button" class="buy buy-open" data-pay={row.order_id} onClick={act(payOrder)}>
        {t("claim.pay")}
      </button>
      <button type="button" class="plain" onClick={act(cancelOrder)}>
        {t("claim.cancel")}
      </button>
      <Failure error={error} />
    </div>
  );
}

/** The picture is the run-list's; an order keeps only the name. */
function ProductPicture({ product, title }: { product: number; title: string }) {
  const found = values.value.runlist?.products.find((item) => item.product === product);
  return <Picture url={found?.image_url ?? ""} title={found?.title ?? title} />;
}

function ItemName({ sale }: { sale: number }) {
  const terms = values.value.sales[sale];
  const product = values.value.runlist?.products.find((item) => item.product === terms?.product);
  const sku = product?.skus.find((item) => item.sku === terms?.sku);
  return (
    <h3>
      {product?.title ?? t("sale.label")} <span>{sku?.title ?? ""}</span>
    </h3>
  );
}

function SignIn() {
  const [error, setError] = useState<ApiError | null>(null);
  const { me, signInRefusal } = state.value;
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget as HTMLFormElement);
    setError(await attempt(() => signInAs(String(data.get("name")).trim())));
  };
  if (me) {
    return (
      <Sheet title={t("sign_in.as", { name: me.name || me.user })} onClose={close}>
        <button type="button" class="plain" onClick={signOut}>
          {t("sign_in.out")}
        </button>
      </Sheet>
    );
  }
  return (
    <Sheet title={t("sign_in.title")} onClose={close}>
      <form class="sign-in" onSubmit={submit}>
        <label>
          {t("sign_in.name")}
          <input
            name="name"
            required
            maxLength={NAME_CHARS_MAX}
            autoComplete="nickname"
            // biome-ignore lint/a11y/noAutofocus: the one field of a sheet that was asked for
            autoFocus
          />
        </label>
        {signInRefusal && <p class="failure">{textOf(signInRefusal)}</p>}
        <Failure error={error} />
        <button type="submit" class="buy buy-open">
          {t("sign_in.go")}
        </button>
      </form>
    </Sheet>
  );
}
