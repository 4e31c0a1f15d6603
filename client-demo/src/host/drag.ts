/**
 * The order of a list, by dragging a handle or by its keys (Space grabs and drops, the arrows
 * move, Escape puts back). The order is given out once, when the row is dropped.
 */

import { useLayoutEffect, useRef, useState } from "preact/hooks";

const EDGE_PX = 72;
const SCROLL_PX = 14;

/** `ids` with the one at `from` moved so that it stands at `to`. */
export function moved<T>(ids: readonly T[], from: number, to: number): readonly T[] {
  const taken = ids.slice(from, from + 1);
  const rest = ids.filter((_, place) => place !== from);
  return [...rest.slice(0, to), ...taken, ...rest.slice(to)];
}

/** `order`, given for an older list, for the `newest` ids: no longer there goes, new comes last. */
export function rebased(order: readonly number[], newest: readonly number[]): readonly number[] {
  const kept = order.filter((id) => newest.includes(id));
  return [...kept, ...newest.filter((id) => !order.includes(id))];
}

/** The place of a row whose middle is at `middle`, among rows with `middles` from top to bottom. */
export function placeAt(middles: readonly number[], from: number, middle: number): number {
  return middles.filter((other, place) => place !== from && other < middle).length;
}

/** How many pixels to scroll for a pointer at `y` in a window `height` high. */
export function scrollFor(y: number, height: number): number {
  if (y < EDGE_PX) return -SCROLL_PX;
  return y > height - EDGE_PX ? SCROLL_PX : 0;
}

export type DragNews = { what: "grabbed" | "moved" | "dropped"; place: number } | null;

/** Attributes of the handle of the row with `id`. */
type HandleProps = {
  "aria-pressed": boolean;
  onPointerDown: (event: PointerEvent) => void;
  onKeyDown: (event: KeyboardEvent) => void;
  onBlur: () => void;
};

export interface DragOrder {
  /** The order to show. */
  order: readonly number[];
  grabbed: number | null;
  news: DragNews;
  handle: (id: number) => HandleProps;
}

/** `commit` is told a new order once; until it is through that order is shown, then `ids` again. */
export function useDragOrder(
  ids: readonly number[],
  commit: (order: readonly number[]) => Promise<void>,
): DragOrder {
  const [order, setOrder] = useState<readonly number[] | null>(null);
  const [grabbed, setGrabbed] = useState<number | null>(null);
  const [news, setNews] = useState<DragNews>(null);
  const focus = useRef<HTMLElement | null>(null);
  const byKeys = useRef(false);
  const shown = order ?? ids;
  // A row that moves in the document loses the focus.
  useLayoutEffect(() => focus.current?.focus(), [order]);

  const putBack = () => {
    byKeys.current = false;
    setGrabbed(null);
    setOrder(null);
  };
  const drop = async (next: readonly number[], place: number) => {
    byKeys.current = false;
    setGrabbed(null);
    setNews({ what: "dropped", place });
    setOrder(next);
    try {
      if (next.join() !== ids.join()) await commit(next);
    } finally {
      focus.current = null;
      putBack();
    }
  };
  const byKey = (id: number, event: KeyboardEvent) => {
    const place = shown.indexOf(id);
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key] ?? 0;
    if (grabbed === id && (event.key === " " || event.key === "Tab")) {
      if (event.key === " ") event.preventDefault();
      void drop(shown, place);
    } else if (event.key === " ") {
      event.preventDefault();
      if (order !== null) return;
      focus.current = event.currentTarget as HTMLElement;
      byKeys.current = true;
      setGrabbed(id);
      setNews({ what: "grabbed", place });
    } else if (grabbed === id && event.key === "Escape") {
      putBack();
    } else if (grabbed === id && step !== 0) {
      event.preventDefault();
      const to = Math.max(0, Math.min(shown.length - 1, place + step));
      setOrder(moved(shown, place, to));
      setNews({ what: "moved", place: to });
    }
  };
  /** A move gives the focus back within the frame; whoever went elsewhere let the row go. */
  const onBlur = () =>
    requestAnimationFrame(() => {
      if (!byKeys.current || document.activeElement === focus.current) return;
      focus.current = null;
      putBack();
    });
  const handle = (id: number): HandleProps => ({
    "aria-pressed": grabbed === id,
    onPointerDown: (event) => {
      if (event.button !== 0 || order !== null) return;
      focus.current = null;
      const from = ids.indexOf(id);
      setGrabbed(id);
      carry(event, from, (to) => {
        if (to === null || to === from) putBack();
        else void drop(moved(ids, from, to), to);
      });
    },
    onKeyDown: (event) => byKey(id, event),
    onBlur,
  });
  return { order: shown, grabbed, news, handle };
}

/** A row under the pointer: it follows, and the others make room for it. */
class Carried {
  readonly #rows: readonly HTMLElement[];
  readonly #middles: readonly number[];
  readonly #from: number;
  readonly #room: number;
  readonly #startY: number;
  #y: number;
  #frame = 0;

  constructor(row: HTMLElement, from: number, clientY: number) {
    this.#rows = [...(row.parentElement?.children ?? [])] as HTMLElement[];
    this.#middles = this.#rows.map((other) => other.offsetTop + other.offsetHeight / 2);
    this.#from = from;
    this.#room = row.offsetHeight + gapOf(this.#rows);
    this.#startY = clientY + scrollY;
    this.#y = clientY;
    this.#paint();
  }

  moveTo(clientY: number): void {
    this.#y = clientY;
  }

  /** The place it hangs over. */
  get place(): number {
    const middle = (this.#middles[this.#from] ?? 0) + this.#shift;
    return placeAt(this.#middles, this.#from, middle);
  }

  letGo(): void {
    cancelAnimationFrame(this.#frame);
    for (const row of this.#rows) row.style.transform = "";
  }

  get #shift(): number {
    return this.#y + scrollY - this.#startY;
  }

  #paint(): void {
    scrollBy(0, scrollFor(this.#y, innerHeight));
    const to = this.place;
    for (const [at, row] of this.#rows.entries()) {
      const y = at === this.#from ? this.#shift : aside(at, this.#from, to) * this.#room;
      row.style.transform = `translateY(${y}px)`;
    }
    this.#frame = requestAnimationFrame(() => this.#paint());
  }
}

/** Carry the row of the handle that was pressed; `done` gets its place, null: put back. */
function carry(down: PointerEvent, from: number, done: (place: number | null) => void): void {
  const handle = down.currentTarget as HTMLElement;
  const row = handle.closest("li") ?? handle;
  const carried = new Carried(row, from, down.clientY);
  const listening = new AbortController();
  const { signal } = listening;
  const end = (place: number | null) => {
    listening.abort();
    carried.letGo();
    done(place);
  };
  handle.setPointerCapture(down.pointerId);
  handle.addEventListener("pointermove", ({ clientY }) => carried.moveTo(clientY), { signal });
  handle.addEventListener("pointerup", () => end(carried.place), { signal });
  handle.addEventListener("pointercancel", () => end(null), { signal });
  // The row may be gone by now: the document is told then.
  document.addEventListener("lostpointercapture", () => end(null), { signal });
  addEventListener("blur", () => end(null), { signal });
  addEventListener("keydown", ({ key }) => key === "Escape" && end(null), { signal });
}

/** -1, 0 or 1 rows aside, for the row at `at` while the one of `from` hangs over `to`. */
export function aside(at: number, from: number, to: number): number {
  if (from < at && at <= to) return -1;
  return to <= at && at < from ? 1 : 0;
}

function gapOf([first, second]: readonly HTMLElement[]): number {
  if (!first || !second) return 0;
  return second.offsetTop - first.offsetTop - first.offsetHeight;
}
