/** Hearts that rise at the edge of the picture; never more than a few dozen at once. */

const ALIVE_MAX = 24;
const PER_CALL_MAX = 4;
const COLOURS = 4;
const RISE_PX = 240;
const RISE_MS = 2_200;

/** The room's total has an own tap after so long at most, or never. */
const ECHO_MS = 5_000;

/** Own taps, whose hearts rise at once, and which the room's total brings a second time. */
export class OwnTaps {
  #coming = 0;
  #lastAt = 0;

  /** `taps` were sent at `now` (local ms). */
  sent(taps: number, now: number): void {
    this.#coming = this.#waitedFor(now) + taps;
    this.#lastAt = now;
  }

  /** Of `grown` likes that came at `now`, those of other people. */
  others(grown: number, now: number): number {
    const own = Math.min(grown, this.#waitedFor(now));
    this.#coming -= own;
    return grown - own;
  }

  /** Likes that a server refused, or that went down with a connection, are not waited for. */
  #waitedFor(now: number): number {
    if (now - this.#lastAt > ECHO_MS) this.#coming = 0;
    return this.#coming;
  }
}

export class HeartBurst {
  readonly #box: HTMLElement;

  constructor(box: HTMLElement) {
    this.#box = box;
  }

  /** `likes` more were counted; only some of them become hearts. */
  rise(likes: number): void {
    if (document.hidden) return;
    const room = ALIVE_MAX - this.#box.childElementCount;
    for (let left = Math.min(likes, PER_CALL_MAX, room); left > 0; left -= 1) this.#one();
  }

  #one(): void {
    const heart = document.createElement("span");
    heart.className = `heart heart-${Math.floor(Math.random() * COLOURS)}`;
    this.#box.append(heart);
    const drift = (Math.random() - 0.5) * 70;
    const up = RISE_PX * (0.7 + Math.random() * 0.3);
    const frames = [
      { transform: "translate(0, 0) scale(0.4)", opacity: 0 },
      { transform: `translate(${drift / 2}px, ${-up / 4}px) scale(1.1)`, opacity: 1, offset: 0.2 },
      { transform: `translate(${drift}px, ${-up}px) scale(0.9)`, opacity: 0 },
    ];
    heart.animate(frames, { duration: RISE_MS, easing: "ease-out" }).onfinish = () =>
      heart.remove();
  }
}
