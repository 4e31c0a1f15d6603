/** What the style sheets need to know of the window: hidden, keyboard, room for a third column. */

import { signal } from "@preact/signals";

const THREE_COLUMNS = matchMedia("(min-width: 1400px)");

/** Whether the goods have a column of their own. */
export const roomForGoods = signal(THREE_COLUMNS.matches);

/** Keep :root[data-hidden] (no animation runs there) and --keyboard (px) right. */
export function followSurroundings(): void {
  const root = document.documentElement;
  const seen = () => root.toggleAttribute("data-hidden", document.hidden);
  document.addEventListener("visibilitychange", seen);
  seen();
  THREE_COLUMNS.addEventListener("change", () => {
    roomForGoods.value = THREE_COLUMNS.matches;
  });
  const view = window.visualViewport;
  view?.addEventListener("resize", () => {
    const covered = Math.max(0, window.innerHeight - view.height - view.offsetTop);
    root.style.setProperty("--keyboard", `${Math.round(covered)}px`);
  });
}
