/**
 * Danmaku lanes: lines fly over the picture from right to left, one after another in each lane.
 *
 * Elements move by the Web Animations API on `transform` alone and are used again. Nothing here
 * asks the browser for a layout: the box is measured when it changes, texts by a canvas. A line
 * that finds no free lane is not shown here; the chat list has it.
 */

import type { ChatLine } from "../live";
import type { Density } from "./prefs";

const CROSSING_MS = 7_000;
const LANE_PX = 34;
const GAP_PX = 28;
/** Padding and border of an own line. */
const OWN_PX = 26;
const ALIVE_PER_LANE_MAX = 6;
const ALIVE_MAX = 120;
const SHARES: Readonly<Record<Density, number>> = { quarter: 0.25, half: 0.5, full: 1 };

/** How many lanes a box of `height` px has; always one. */
export function laneCount(height: number, density: Density): number {
  return Math.max(1, Math.floor((height / LANE_PX) * SHARES[density]));
}

/** The first of `lanes` lanes that is free at `now`; -1: none. */
export function freeLane(freeAt: readonly number[], lanes: number, now: number): number {
  for (let lane = 0; lane < lanes; lane += 1) {
    if ((freeAt[lane] ?? 0) <= now) return lane;
  }
  return -1;
}

interface Flight {
  line: ChatLine;
  animation: Animation;
}

export class DanmakuLanes {
  readonly #box: HTMLElement;
  readonly #pen = document.createElement("canvas").getContext("2d");
  readonly #resizes = new ResizeObserver(() => this.#measure());
  readonly #flights = new Map<HTMLElement, Flight>();
  readonly #idle: HTMLElement[] = [];
  /** Per lane: when its right edge is free again, local ms. */
  #freeAt: number[] = [];
  #width = 0;
  #height = 0;
  #paused = false;
  density: Density = "full";

  constructor(box: HTMLElement) {
    this.#box = box;
    this.#resizes.observe(box);
    this.#measure();
  }

  show(line: ChatLine, own: boolean): void {
    const now = performance.now();
    const lanes = laneCount(this.#height, this.density);
    if (this.#paused || this.#flights.size >= Math.min(ALIVE_MAX, lanes * ALIVE_PER_LANE_MAX)) {
      return;
    }
    const lane = freeLane(this.#freeAt, lanes, now);
    if (lane < 0) return;
    const width = this.#widthOf(line.text) + (own ? OWN_PX : 0);
    const distance = this.#width + width;
    this.#freeAt[lane] = now + (CROSSING_MS * (width + GAP_PX)) / distance;
    this.#fly(line, this.#element(line.text, own, lane), distance);
  }

  /** Lines in the air stand still and new ones are left out, until it is called with false. */
  pause(paused: boolean): void {
    if (paused === this.#paused) return;
    this.#paused = paused;
    if (!paused) this.#freeAt = this.#freeAt.map(() => performance.now() + CROSSING_MS / 2);
    for (const { animation } of this.#flights.values()) {
      if (paused) animation.pause();
      else animation.play();
    }
  }

  /** Take lines out of the air that `isGone`. */
  remove(isGone: (line: ChatLine) => boolean): void {
    for (const [element, flight] of this.#flights) {
      if (isGone(flight.line)) this.#land(element, flight);
    }
  }

  close(): void {
    this.#resizes.disconnect();
    this.remove(() => true);
    this.#box.replaceChildren();
  }

  #fly(line: ChatLine, element: HTMLElement, distance: number): void {
    const animation = element.animate(
      [{ transform: "translateX(0)" }, { transform: `translateX(${-distance}px)` }],
      { duration: CROSSING_MS, easing: "linear" },
    );
    const flight = { line, animation };
    this.#flights.set(element, flight);
    animation.onfinish = () => this.#land(element, flight);
  }

  #land(element: HTMLElement, { animation }: Flight): void {
    this.#flights.delete(element);
    animation.onfinish = null;
    animation.cancel();
    element.textContent = "";
    this.#idle.push(element);
  }

  /** One that is not flying, else a new one. Out of flight it waits beyond the right edge. */
  #element(text: string, own: boolean, lane: number): HTMLElement {
    const element = this.#idle.pop() ?? this.#box.appendChild(document.createElement("span"));
    element.className = own ? "danmaku danmaku-own" : "danmaku";
    element.textContent = text;
    element.style.top = `${lane * LANE_PX}px`;
    return element;
  }

  #widthOf(text: string): number {
    return Math.ceil(this.#pen?.measureText(text).width ?? text.length * LANE_PX);
  }

  #measure(): void {
    this.#width = this.#box.clientWidth;
    this.#height = this.#box.clientHeight;
    if (this.#pen) this.#pen.font = getComputedStyle(this.#box).font;
  }
}

/** People who asked for less motion get none. */
export function wantsLessMotion(): boolean {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}
