/** The goods of the show: as a sheet, and as a column of their own where there is room. */

import { t } from "../i18n";
import type { ProductView, SaleState, SkuView } from "../live";
import { money } from "../ui/format";
import { Bolt } from "../ui/icons";
import { Picture, Sheet } from "../ui/parts";
import { live, openBuy, runningSales, values } from "./page";
import { PinMark } from "./pin";
import { SaleCard } from "./sale-card";

export function GoodsSheet({ onClose }: { onClose: () => void }) {
  const products = values.value.runlist?.products ?? [];
  return (
    <Sheet title={t("goods")} onClose={onClose}>
      {products.length === 0 && <p class="empty">{t("goods.empty")}</p>}
      <ol class="goods">
        {products.map((product, index) => (
          <Product key={product.product} product={product} number={index + 1} />
        ))}
      </ol>
    </Sheet>
  );
}

function salesOf(product: ProductView): SaleState[] {
  return runningSales(live.now.value).filter((sale) => sale.product === product.product);
}

function Product({ product, number }: { product: ProductView; number: number }) {
  return (
    <li class="product">
      <div class="product-row">
        <NumberedPicture product={product} number={number} />
        <div>
          <h3>
            {product.title}
            {values.value.pin?.product === product.product && <PinMark />}
          </h3>
          <ul class="skus">
            {product.skus.map((sku) => (
              <Sku key={sku.sku} sku={sku} />
            ))}
          </ul>
        </div>
      </div>
      {salesOf(product).map((sale) => (
        <SaleCard key={sale.sale} sale={sale} />
      ))}
    </li>
  );
}

function NumberedPicture({ product, number }: { product: ProductView; number: number }) {
  return (
    <span class="product-picture">
      <Picture url={product.image_url} title={product.title} />
      <i class="product-number">{number}</i>
    </span>
  );
}

function Sku({ sku }: { sku: SkuView }) {
  return (
    <li>
      <span>{sku.title}</span> <b>{money(sku.price, sku.currency)}</b>
    </li>
  );
}

export function GoodsRail() {
  const products = values.value.runlist?.products ?? [];
  return (
    <aside class="rail" aria-label={t("goods")}>
      <h2>{t("goods")}</h2>
      {products.length === 0 && <p class="empty">{t("goods.empty")}</p>}
      <ol>
        {products.map((product, index) => (
          <RailItem key={product.product} product={product} number={index + 1} />
        ))}
      </ol>
    </aside>
  );
}

function RailItem({ product, number }: { product: ProductView; number: number }) {
  const sale = salesOf(product)[0];
  const sku = product.skus[0];
  return (
    <li class="rail-item">
      <NumberedPicture product={product} number={number} />
      <div>
        <h3>{product.title}</h3>
        {values.value.pin?.product === product.product && <PinMark />}
        {!sale && sku && <p class="rail-price">{money(sku.price, sku.currency)}</p>}
        {sale && (
          <button type="button" class="rail-sale" onClick={() => openBuy(sale.sale)}>
            <Bolt />
            {t("sale.label")} {money(sale.price, sale.currency)}
          </button>
        )}
      </div>
    </li>
  );
}
