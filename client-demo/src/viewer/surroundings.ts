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
  const keyboard = () => {
    const covered = view ? window.innerHeight - view.height - view.offsetTop : 0;
    root.style.setProperty("--keyboard", `${Math.round(Math.max(0, covered))}px`);
  };
  view?.addEventListener("resize", keyboard);
  view?.addEventListener("scroll", keyboard); // iOS moves the view without resizing it
}
