/** The regions that screen readers read out by themselves: stock, and the chat at intervals. */

import { useEffect, useRef, useState } from "preact/hooks";
import { t } from "../i18n";
import { ChatNews } from "../ui/chat-news";
import { stockNews } from "./announce";
import { front, live, values } from "./page";

export function Announcer() {
  return (
    <div class="sr-only">
      <StockNews />
      <ChatNews session={live.session} />
    </div>
  );
}

function StockNews() {
  const sale = front.value?.sale ?? 0;
  const left = values.value.stocks[sale]?.left;
  const before = useRef({ sale, left });
  const [said, setSaid] = useState<number | null>(null);
  useEffect(() => {
    const same = before.current.sale === sale;
    const closed = front.value?.phase === "closed"; // its units went back, nobody bought them
    const was = before.current.left;
    before.current = { sale, left };
    if (!same) setSaid(null);
    else if (!closed && was !== undefined && left !== undefined) {
      setSaid((last) => stockNews(last, was, left));
    }
  }, [sale, left]);
  return <p role="status">{said !== null && stockText(said)}</p>;
}

function stockText(left: number): string {
  return left === 0 ? t("stock.gone") : t("stock.news", { n: left });
}
