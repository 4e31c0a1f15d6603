/** Products, their skus, the order of the run-list, and the pin. */

import { useState } from "preact/hooks";
import { t } from "../i18n";
import type { ApiError } from "../ui/api";
import { money, parseMoney, plainMoney } from "../ui/format";
import { Failure, Picture } from "../ui/parts";
import type { Desk } from "./desk";
import { ActButton, ActForm, Field, MoneyField, UnitsField, type Values } from "./form";
import type { Product, Sku } from "./types";

export function Products({ desk }: { desk: Desk }) {
  const listed = desk.products.value.filter((product) => product.listed);
  const others = desk.products.value.filter((product) => !product.listed);
  return (
    <section class="card">
      <h2>{t("product.runlist")}</h2>
      {desk.products.value.length === 0 && <p class="empty">{t("goods.empty")}</p>}
      <ol class="products">
        {listed.map((product, place) => (
          <Item key={product.product} desk={desk} product={product} place={place} listed={listed} />
        ))}
        {others.map((product) => (
          <Item key={product.product} desk={desk} product={product} place={-1} listed={listed} />
        ))}
      </ol>
      <details>
        <summary>{t("product.add")}</summary>
        <ActForm
          label={t("product.add")}
          clears
          act={(values) => desk.addProduct(newProduct(values))}
        >
          <Field label={t("product.title")} name="title" required maxLength={80} />
          <Field label={t("product.image_url")} name="image_url" maxLength={1024} />
          <SkuFields />
        </ActForm>
      </details>
    </section>
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
  /** Index in the run-list; -1: not listed. */
  place: number;
  listed: readonly Product[];
}

function Item({ desk, product, place, listed }: ItemProps) {
  const pinned = desk.pinned.value === product.product;
  return (
    <li class={pinned ? "item item-pinned" : "item"} data-product={product.product}>
      <div class="item-row">
        <Picture url={product.image_url} title={product.title} />
        <div class="item-text">
          <h3>
            {place >= 0 ? `${place + 1}. ` : ""}
            {product.title}
            {place < 0 && <small class="off">{t("product.off_list")}</small>}
            {pinned && <b class="pin-mark">{t("pin.label")}</b>}
          </h3>
          <ul class="skus">
            {product.skus.map((sku) => (
              <li key={sku.sku}>
                {sku.title} <b>{money(sku.price, sku.currency)}</b>{" "}
                <small>
                  {t("sku.inventory")} {sku.inventory} · {t("sku.allotted", { n: sku.allotted })}
                </small>
              </li>
            ))}
          </ul>
        </div>
      </div>
      <ItemTools desk={desk} product={product} place={place} listed={listed} />
      <details>
        <summary>{t("product.edit")}</summary>
        <ActForm
          label={t("save")}
          act={({ title, image_url }) => desk.editProduct(product.product, { title, image_url })}
        >
          <Field label={t("product.title")} name="title" value={product.title} required />
          <Field label={t("product.image_url")} name="image_url" value={product.image_url} />
        </ActForm>
        {product.skus.map((sku) => (
          <EditSku key={sku.sku} desk={desk} sku={sku} />
        ))}
        <ActForm
          label={t("sku.add")}
          clears
          act={(values) => desk.addSku(product.product, newSku(values))}
        >
          <h4>{t("sku.add")}</h4>
          <SkuFields />
        </ActForm>
      </details>
    </li>
  );
}

function ItemTools({ desk, product, place, listed }: ItemProps) {
  const [error, setError] = useState<ApiError | null>(null);
  const ids = listed.map((other) => other.product);
  const id = product.product;
  const pinned = desk.pinned.value === id;
  return (
    <>
      <div class="row">
        <ActButton
          label={t(pinned ? "product.unpin" : "product.pin")}
          class={pinned ? "plain" : "plain accent"}
          act={() => desk.pin(pinned ? 0 : id)}
          onError={setError}
        />
        {place >= 0 && (
          <>
            <ActButton
              label={t("product.up")}
              disabled={place === 0}
              act={() => desk.setRunList(swapped(ids, place, place - 1))}
              onError={setError}
            />
            <ActButton
              label={t("product.down")}
              disabled={place === ids.length - 1}
              act={() => desk.setRunList(swapped(ids, place, place + 1))}
              onError={setError}
            />
          </>
        )}
        <ActButton
          label={t(place >= 0 ? "product.unlist" : "product.list")}
          act={() =>
            desk.setRunList(place >= 0 ? ids.filter((other) => other !== id) : [...ids, id])
          }
          onError={setError}
        />
      </div>
      <Failure error={error} />
    </>
  );
}

function swapped(ids: readonly number[], from: number, to: number): number[] {
  const moved = ids[from];
  const rest = ids.filter((_, place) => place !== from);
  return moved === undefined ? rest : [...rest.slice(0, to), moved, ...rest.slice(to)];
}

function EditSku({ desk, sku }: { desk: Desk; sku: Sku }) {
  const save = ({ title, price = "", inventory = "" }: Values) => {
    const fields = { title, price: parseMoney(price, sku.currency), inventory: +inventory };
    return desk.editSku(sku.sku, fields);
  };
  return (
    <ActForm label={t("save")} act={save}>
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
