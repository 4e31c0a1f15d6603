/** Products, their skus and cues, the order of the run-list, and the pin. */

import { useState } from "preact/hooks";
import { t } from "../i18n";
import type { ApiError } from "../ui/api";
import { count, money, parseMoney, plainMoney } from "../ui/format";
import { attempt, Failure, Picture } from "../ui/parts";
import { cuesOf } from "./cues";
import type { Desk } from "./desk";
import { type DragOrder, rebased, useDragOrder } from "./drag";
import { ActButton, ActForm, Field, LinesField, MoneyField, UnitsField, type Values } from "./form";
import type { Product, Sku } from "./types";

export function Products({ desk }: { desk: Desk }) {
  const [error, setError] = useState<ApiError | null>(null);
  const products = new Map(desk.products.value.map((product) => [product.product, product]));
  const listed = desk.products.value.filter((product) => product.listed);
  const others = desk.products.value.filter((product) => !product.listed);
  const drag = useDragOrder(
    listed.map(({ product }) => product),
    async (order) =>
      setError(await attempt(() => desk.changeRunList((now) => rebased(order, now)))),
  );
  const ordered = drag.order.flatMap((id) => products.get(id) ?? []);
  return (
    <section class="card goods" id="goods" tabIndex={-1}>
      <h2>{t("product.runlist")}</h2>
      <ol class="products">
        {ordered.map((product) => (
          <Item
            key={product.product}
            desk={desk}
            product={product}
            {...(desk.may("set_runlist") && { drag })}
          />
        ))}
      </ol>
      {others.length > 0 && (
        <ol class="products">
          {others.map((product) => (
            <Item key={product.product} desk={desk} product={product} />
          ))}
        </ol>
      )}
      <Failure error={error} />
      <DragNews drag={drag} products={products} />
      {desk.may("create_product") && <AddProduct desk={desk} />}
    </section>
  );
}

function AddProduct({ desk }: { desk: Desk }) {
  return (
    <details open={desk.products.value.length === 0}>
      <summary>{t("product.add")}</summary>
      <ActForm
        label={t("product.add")}
        clears
        currency={skuCurrency}
        act={(values) => desk.addProduct(newProduct(values))}
      >
        <Field label={t("product.title")} name="title" required maxLength={80} />
        <Field label={t("product.image_url")} name="image_url" maxLength={1024} />
        <SkuFields />
      </ActForm>
    </details>
  );
}

interface DragNewsProps {
  drag: DragOrder;
  products: ReadonlyMap<number, Product>;
}

/** The keyboard's moves in words, for those who do not see them. */
function DragNews({ drag: { news, order }, products }: DragNewsProps) {
  const name = news && products.get(order[news.place] ?? 0)?.title;
  return (
    <p class="sr-only" role="status">
      {name && t(`drag.${news.what}`, { name, n: news.place + 1 })}
    </p>
  );
}

function newProduct(values: Values): object {
  const { title = "", image_url = "" } = values;
  return { title, image_url, skus: [newSku(values)] };
}

function newSku({ sku_title = "", price = "", currency = "CNY", inventory = "" }: Values): object {
  const code = currency.toUpperCase();
  return {
    title: sku_title,
    price: parseMoney(price, code),
    currency: code,
    inventory: +inventory,
  };
}

function skuCurrency({ currency = "" }: Values): string {
  return currency;
}

function SkuFields() {
  return (
    <div class="fields">
      <Field label={t("sku.title")} name="sku_title" required maxLength={80} />
      <MoneyField label={t("sku.price")} name="price" placeholder="129.00" />
      <Field
        label={t("sku.currency")}
        name="currency"
        value="CNY"
        pattern="[A-Za-z]{3}"
        required
        maxLength={3}
      />
      <UnitsField label={t("sku.inventory")} name="inventory" min={0} value={100} />
    </div>
  );
}

interface ItemProps {
  desk: Desk;
  product: Product;
  /** Only for what is in the run-list, and for who may order it. */
  drag?: DragOrder;
}

function Item({ desk, product, drag }: ItemProps) {
  const [error, setError] = useState<ApiError | null>(null);
  const id = product.product;
  const pinned = desk.pinned.value === id;
  const grabbed = drag?.grabbed === id;
  return (
    <li
      class={`item ${pinned ? "item-pinned" : ""} ${grabbed ? "item-grabbed" : ""}`}
      data-product={id}
    >
      <div class="item-row">
        {drag && <Handle drag={drag} product={product} />}
        <Picture url={product.image_url} title={product.title} />
        <div class="item-text">
          <div class="item-head">
            <h3>
              {product.title}
              {!product.listed && <small class="off">{t("product.off_list")}</small>}
            </h3>
            <ActButton
              label={t(pinned ? "product.unpin" : "product.pin")}
              class={pinned ? "tiny pinned" : "tiny accent"}
              act={() => desk.pin(pinned ? 0 : id)}
              onError={setError}
            />
          </div>
          <Skus skus={product.skus} />
        </div>
      </div>
      <Failure error={error} />
      {desk.may("edit_product") && (
        <details>
          <summary>{t("product.edit")}</summary>
          <EditProduct desk={desk} product={product} />
        </details>
      )}
    </li>
  );
}

function Handle({ drag, product }: { drag: DragOrder; product: Product }) {
  return (
    <button
      type="button"
      class="handle"
      aria-label={t("drag.handle", { name: product.title })}
      {...drag.handle(product.product)}
    >
      <i aria-hidden="true" />
    </button>
  );
}

function Skus({ skus }: { skus: readonly Sku[] }) {
  return (
    <ul class="skus">
      {skus.map((sku) => (
        <li key={sku.sku}>
          <span>
            {sku.title} <b>{money(sku.price, sku.currency)}</b>
          </span>{" "}
          <small>
            {t("sku.inventory")} {count(sku.inventory)}
            {sku.allotted > 0 && <> · {t("sku.allotted", { n: count(sku.allotted) })}</>}
          </small>
        </li>
      ))}
    </ul>
  );
}

function EditProduct({ desk, product }: { desk: Desk; product: Product }) {
  const save = ({ title, image_url, cues }: Values) =>
    desk.editProduct(product.product, { title, image_url, cues: cuesOf(cues ?? "") });
  return (
    <>
      <ActForm label={t("save")} act={save}>
        <Field label={t("product.title")} name="title" value={product.title} required />
        <Field label={t("product.image_url")} name="image_url" value={product.image_url} />
        <LinesField
          label={t("prompter.cues")}
          name="cues"
          rows={4}
          value={product.cues.join("\n")}
        />
      </ActForm>
      {product.skus.map((sku) => (
        <EditSku key={sku.sku} desk={desk} sku={sku} />
      ))}
      <ActForm
        label={t("sku.add")}
        clears
        currency={skuCurrency}
        act={(values) => desk.addSku(product.product, newSku(values))}
      >
        <h4>{t("sku.add")}</h4>
        <SkuFields />
      </ActForm>
      <Listing desk={desk} product={product} />
    </>
  );
}

/** Into the run-list (at its end) or out of it. */
function Listing({ desk, product }: { desk: Desk; product: Product }) {
  const id = product.product;
  const turn = (now: readonly number[]) => {
    const others = now.filter((other) => other !== id);
    return product.listed ? others : [...others, id];
  };
  return (
    <p class="row">
      <ActButton
        label={t(product.listed ? "product.unlist" : "product.list")}
        act={() => desk.changeRunList(turn)}
      />
    </p>
  );
}

function EditSku({ desk, sku }: { desk: Desk; sku: Sku }) {
  const save = ({ title, price = "", inventory = "" }: Values) => {
    const fields = { title, price: parseMoney(price, sku.currency), inventory: +inventory };
    return desk.editSku(sku.sku, fields);
  };
  return (
    <ActForm label={t("save")} currency={() => sku.currency} act={save}>
      <h4>
        {t("sku.edit")} · {sku.title}
      </h4>
      <div class="fields">
        <Field label={t("sku.title")} name="title" value={sku.title} required maxLength={80} />
        <MoneyField
          label={`${t("sku.price")} (${sku.currency})`}
          name="price"
          value={plainMoney(sku.price, sku.currency)}
        />
        <UnitsField label={t("sku.inventory")} name="inventory" min={0} value={sku.inventory} />
      </div>
    </ActForm>
  );
}
