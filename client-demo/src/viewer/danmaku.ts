/**
 * Danmaku lanes: lines fly over the picture from right to left, one after another in each lane.
 *
 * Elements move by the Web Animations API on `transform` alone (no layout per frame) and leave
 * the document when they are through. A line that finds no free lane is not shown here; the chat
 * list has it.
 */

const CROSSING_MS = 7_000;
const LANE_PX = 34;
const GAP_PX = 28;

export class DanmakuLanes {
  readonly #box: HTMLElement;
  /** Per lane: when its right edge is free again, local ms. */
  #freeAt: number[] = [];

  constructor(box: HTMLElement) {
    this.#box = box;
  }

  show(text: string, own: boolean): void {
    const now = performance.now();
    const lane = this.#freeLane(now);
    if (lane < 0) return;
    const element = this.#element(text, own, lane);
    const width = element.offsetWidth;
    const distance = this.#box.clientWidth + width;
    this.#freeAt[lane] = now + (CROSSING_MS * (width + GAP_PX)) / distance;
    const flight = element.animate(
      [{ transform: "translateX(0)" }, { transform: `translateX(${-distance}px)` }],
      { duration: CROSSING_MS, easing: "linear" },
    );
    flight.onfinish = () => element.remove();
  }

  clear(): void {
    this.#box.replaceChildren();
    this.#freeAt = [];
  }

  #freeLane(now: number): number {
    const lanes = Math.max(1, Math.floor(this.#box.clientHeight / LANE_PX));
    for (let lane = 0; lane < lanes; lane += 1) {
      if ((this.#freeAt[lane] ?? 0) <= now) return lane;
    }
    return -1;
  }

  #element(text: string, own: boolean, lane: number): HTMLElement {
    const element = document.createElement("span");
    element.className = own ? "danmaku danmaku-own" : "danmaku";
    element.textContent = text;
    element.style.top = `${lane * LANE_PX}px`;
    this.#box.append(element);
    return element;
  }
}

/** People who asked for less motion get none. */
export function wantsLessMotion(): boolean {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}
