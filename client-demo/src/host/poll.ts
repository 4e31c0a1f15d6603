/** Asking the server again and again, as rarely as what is on screen allows. */

import { effect, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { ApiError } from "../ui/api";
import { attempt } from "../ui/parts";

export interface Reading<T> {
  value: T;
  /** When it was heard, server ms. */
  at: number;
}

/** "once": nothing moves any more; "never": there is nothing to read. */
export type Pace = "again" | "once" | "never";

export interface PollOptions<T> {
  /** Throws ApiError. */
  read: () => Promise<T>;
  everyMs: number;
  /** False: nobody sees the page, so nothing is asked. */
  isVisible: ReadonlySignal<boolean>;
  /** When it changes, there is something new to read. */
  pace: ReadonlySignal<Pace>;
  now: () => number;
}

const BACK_OFF_MAX = 8;

/**
 * Reads while some part of the page shows `reading`: at once, then `everyMs` after each answer, one
 * request at a time, up to BACK_OFF_MAX times as rarely after failures. A failure keeps the old
 * value, whose age tells the truth.
 */
export class Poll<T> {
  readonly reading: Signal<Reading<T> | null>;
  readonly error = signal<ApiError | null>(null);
  readonly #options: PollOptions<T>;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #unwatch = () => {};
  #watched = false;
  #asking: Promise<void> | undefined;
  #failures = 0;

  constructor(options: PollOptions<T>) {
    this.#options = options;
    this.reading = signal<Reading<T> | null>(null, {
      watched: () => this.#begin(),
      unwatched: () => this.#end(),
    });
  }

  /** Read now; waits for a request under way first, whose answer may be older than the question. */
  async ask(): Promise<void> {
    await this.#asking;
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = undefined;
    });
    await this.#asking;
  }

  #begin(): void {
    this.#watched = true;
    const { isVisible, pace } = this.#options;
    this.#unwatch = effect(() => {
      clearTimeout(this.#timer);
      if (pace.value !== "never" && isVisible.value) void this.ask();
    });
  }

  #end(): void {
    this.#watched = false;
    this.#unwatch();
    clearTimeout(this.#timer);
  }

  async #ask(): Promise<void> {
    const { read, now } = this.#options;
    this.#failures += 1;
    try {
      this.error.value = await attempt(async () => {
        const value = await read();
        this.reading.value = { value, at: now() };
      });
      if (!this.error.value) this.#failures = 0;
    } finally {
      this.#goOn();
    }
  }

  #goOn(): void {
    clearTimeout(this.#timer);
    const { everyMs, isVisible, pace } = this.#options;
    const isDone = pace.peek() === "never" || (pace.peek() === "once" && !this.error.peek());
    if (!this.#watched || !isVisible.peek() || isDone) return;
    const rarer = Math.min(2 ** this.#failures, BACK_OFF_MAX);
    this.#timer = setTimeout(() => void this.ask(), everyMs * rarer);
  }
}
