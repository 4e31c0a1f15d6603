/** Entry of the viewer page (/watch/{show}). */

import { render } from "preact";
import "../design.css";
import "./viewer.css";
import "./stage.css";
import "./offer.css";
import "./talk.css";
import "./sheets.css";
import { followLang, t } from "../i18n";
import { money } from "../ui/format";
import { Picture } from "../ui/parts";
import { frontSale, live, runningSales, sheet, values } from "./page";
import { SaleCard } from "./sale-card";
import { Sheets } from "./sheets";
import { Stage } from "./stage";
import { Bar, ChatList } from "./talk";

function App() {
  return (
    <main class="watch">
      <Stage />
      <div class="side">
        <section class="offer" aria-label={t("watch.offer")}>
          <PinnedCard />
          <FrontSale />
        </section>
        <ChatList />
        <Bar />
      </div>
      <Sheets />
    </main>
  );
}

function FrontSale() {
  const now = live.now.value;
  const sale = frontSale(now);
  if (!sale) return null;
  const others = runningSales(now).filter((other) => other.sale !== sale.sale).length;
  return (
    <>
      <SaleCard sale={sale} />
      {others > 0 && (
        <button type="button" class="more-sales" onClick={() => (sheet.value = "goods")}>
          {t("sale.more", { n: others })}
        </button>
      )}
    </>
  );
}

/** The product being explained; none when the sale card in front is about it anyway. */
function PinnedCard() {
  const { pin, runlist } = values.value;
  const product = runlist?.products.find((item) => item.product === pin?.product);
  if (!product || frontSale(live.now.value)?.product === product.product) return null;
  const sku = product.skus[0];
  return (
    <button type="button" class="pin" onClick={() => (sheet.value = "goods")}>
      <Picture url={product.image_url} title={product.title} />
      <span class="pin-text">
        <b class="pin-mark">{t("pin.label")}</b>
        <span class="pin-title">{product.title}</span>
      </span>
      {sku && <span class="pin-price">{money(sku.price, sku.currency)}</span>}
    </button>
  );
}

followLang();
const root = document.getElementById("app");
if (root) render(<App />, root);
