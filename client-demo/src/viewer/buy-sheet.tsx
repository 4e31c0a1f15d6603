/** The buy sheet: quantity within the limit, the address stub, the total, the same button. */

import { useEffect, useState } from "preact/hooks";
import { t } from "../i18n";
import type { SaleState } from "../live";
import { money } from "../ui/format";
import { claimsOf } from "../ui/live";
import { Picture, Sheet, StockBar, StockNumbers } from "../ui/parts";
import { ADDRESS_FIELDS, type Address, keepAddress, readAddress } from "./address";
import { BuyButton, newestPrice, Outcome } from "./buy";
import { unitsAllowed, unitsTaken } from "./buying";
import { itemOf, saleToBuy, state, values } from "./page";
import { Price } from "./sale-card";

/** Opened before the start it waits: its button opens with the sale. */
export function BuySheet({ onClose }: { onClose: () => void }) {
  const sale = values.value.sales[saleToBuy.value];
  if (!sale) return null;
  return (
    <Sheet title={t("sale.label")} name="buy-sheet" onClose={onClose}>
      <Item sale={sale} />
      <Checkout key={sale.sale} sale={sale} />
    </Sheet>
  );
}

/** How many, where to, and the button. After a success the choice begins anew. */
function Checkout({ sale }: { sale: SaleState }) {
  const claims = claimsOf(state.value, sale.sale);
  const allowed = Math.max(1, unitsAllowed(sale, claims));
  const taken = unitsTaken(claims);
  const [chosen, choose] = useState(1);
  useEffect(() => choose(1), [taken]);
  const quantity = Math.min(chosen, allowed);
  const total = newestPrice(sale, claims).price * quantity;
  return (
    <>
      <div class="choice">
        <span>
          {t("sale.quantity")} <small>{t("sale.limit", { n: sale.limit_per_buyer })}</small>
        </span>
        <Stepper quantity={quantity} max={allowed} onChoose={choose} />
      </div>
      <AddressStub />
      <footer class="buy-foot">
        <b class="buy-total">{t("buy.total", { amount: money(total, sale.currency) })}</b>
        <BuyButton sale={sale} quantity={quantity} more />
        <Outcome sale={sale} />
      </footer>
    </>
  );
}

function Item({ sale }: { sale: SaleState }) {
  const { product, sku } = itemOf(sale);
  const stock = values.value.stocks[sale.sale];
  return (
    <div class="buy-item">
      <Picture url={product?.image_url ?? ""} title={product?.title ?? ""} />
      <div>
        <h3>{product?.title ?? ""}</h3>
        <p class="sale-sku">{sku?.title ?? ""}</p>
        <Price sale={sale} />
      </div>
      {stock && (
        <div class="sale-stock">
          <StockBar stock={stock} />
          <StockNumbers stock={stock} />
        </div>
      )}
    </div>
  );
}

interface StepperProps {
  quantity: number;
  max: number;
  onChoose: (quantity: number) => void;
}

function Stepper({ quantity, max, onChoose }: StepperProps) {
  return (
    <fieldset class="stepper" aria-label={t("sale.quantity")}>
      <button
        type="button"
        disabled={quantity <= 1}
        aria-label={t("sale.less")}
        onClick={() => onChoose(quantity - 1)}
      >
        −
      </button>
      <output>{quantity}</output>
      <button
        type="button"
        disabled={quantity >= max}
        aria-label={t("sale.more_units")}
        onClick={() => onChoose(quantity + 1)}
      >
        +
      </button>
    </fieldset>
  );
}

const AUTOCOMPLETE = { name: "name", phone: "tel", street: "street-address" } as const;

function AddressStub() {
  const [address, setAddress] = useState(readAddress);
  const write = (part: Partial<Address>) => {
    const next = { ...address, ...part };
    setAddress(next);
    keepAddress(next);
  };
  return (
    <details class="address">
      <summary>
        {t("address.title")}
        <span>{[address.name, address.street].filter(Boolean).join(" · ")}</span>
      </summary>
      <div class="address-fields">
        {ADDRESS_FIELDS.map((name) => (
          <label key={name}>
            {t(`address.${name}`)}
            <input
              name={`address-${name}`}
              value={address[name]}
              maxLength={80}
              autocomplete={AUTOCOMPLETE[name]}
              onInput={(event) => write({ [name]: event.currentTarget.value })}
            />
          </label>
        ))}
      </div>
    </details>
  );
}
