/** The product that the host explains at the moment. */

import { t } from "../i18n";
import { money } from "../ui/format";
import { Chevron } from "../ui/icons";
import { Picture } from "../ui/parts";
import { front, sheet, values } from "./page";

/** The words, with three bars that move as if somebody spoke. */
export function PinMark() {
  return (
    <em class="pin-mark">
      <span class="bars" aria-hidden="true">
        <i />
        <i />
        <i />
      </span>
      {t("pin.label")}
    </em>
  );
}

/** None when the sale card in front is about the same product. */
export function PinnedCard() {
  const { pin, runlist } = values.value;
  const product = runlist?.products.find((item) => item.product === pin?.product);
  if (!product || front.value?.product === product.product) return null;
  const sku = product.skus[0];
  return (
    <button type="button" class="pin paper" onClick={() => (sheet.value = "goods")}>
      <Picture url={product.image_url} title={product.title} />
      <span class="pin-text">
        <PinMark />
        <span class="pin-title">{product.title}</span>
      </span>
      {sku && <span class="pin-price">{money(sku.price, sku.currency)}</span>}
      <Chevron />
    </button>
  );
}
