/** Entry of the viewer page (/watch/{show}). */

import { render } from "preact";
import "../design.css";
import "./viewer.css";
import "./stage.css";
import "./offer.css";
import "./talk.css";
import "./sheets.css";
import { followLang, t } from "../i18n";
import { Announcer } from "./announcer";
import { GoodsRail } from "./goods";
import { front, link, live, runningSales, sheet } from "./page";
import { PinnedCard } from "./pin";
import { SaleCard } from "./sale-card";
import { Sheets } from "./sheets";
import { HostLine, Stage } from "./stage";
import { followSurroundings, roomForGoods } from "./surroundings";
import { Bar, ChatList } from "./talk";

function App() {
  const old = link.value.state === "offline" || link.value.state === "catching_up";
  return (
    <main class={old ? "watch stale" : "watch"}>
      {roomForGoods.value && <GoodsRail />}
      <Stage />
      <div class="side">
        <HostLine />
        <section class="offer" aria-label={t("watch.offer")}>
          <PinnedCard />
          <FrontSale />
        </section>
        <ChatList />
        <Bar />
      </div>
      <Announcer />
      <Sheets />
    </main>
  );
}

function FrontSale() {
  const sale = front.value;
  if (!sale) return null;
  return (
    <>
      <SaleCard sale={sale} />
      <MoreSales front={sale.sale} />
    </>
  );
}

function MoreSales({ front: shown }: { front: number }) {
  const others = runningSales(live.now.value).filter(({ sale }) => sale !== shown).length;
  if (others === 0) return null;
  return (
    <button type="button" class="more-sales" onClick={() => (sheet.value = "goods")}>
      {t("sale.more", { n: others })}
    </button>
  );
}

followLang();
followSurroundings();
const root = document.getElementById("app");
if (root) render(<App />, root);
