/**
 * Large acts wait before they are sent: the server cannot take back a stopped sale or a ban, so
 * the time for second thoughts comes first. Nothing is sent that was taken back, and nothing when
 * the page is left. Their time stands still while somebody attends to them (WCAG 2.2.1). What failed
 * stays until it was read: who asked may be gone by then.
 */

import { signal } from "@preact/signals";
import { ApiError } from "../ui/api";
import { type Change, isLarge } from "./large";

export const UNDO_S = 5;

/** An act that is not sent yet, and the whole seconds until it will be. */
export interface HeldBack {
  id: number;
  what: string;
  left: number;
}

/** An act that was sent after its time and failed. */
export interface FailedAct {
  id: number;
  what: string;
  error: ApiError;
}

interface Waiting {
  /** Act and target: of each only one waits. */
  key: string;
  what: string;
  /** By the queue's clock, ms. */
  due: number;
  send: () => void;
  drop: () => void;
  done: Promise<boolean>;
  timer: ReturnType<typeof setInterval>;
}

/** Often enough for whole seconds, also after a pause. */
const LOOK_MS = 250;
const TIMER_EARLY_MS = 5;

export class UndoQueue {
  /** Oldest first. */
  readonly acts = signal<readonly HeldBack[]>([]);
  readonly failed = signal<readonly FailedAct[]>([]);
  /** Whether time stands still. */
  readonly paused = signal(false);
  readonly #waiting = new Map<number, Waiting>();
  #last = 0;
  /** By performance.now(), ms: since when it stands still, and for how long it did before. */
  #pausedAt = 0;
  #stood = 0;

  /** Send at once, or hold back when the change is large. */
  run(
    change: Change,
    target: string | number,
    what: string,
    send: () => Promise<unknown>,
  ): Promise<unknown> {
    return isLarge(change) ? this.hold(`${change.act} ${target}`, what, send) : send();
  }

  /**
   * Send after UNDO_S; false when it was taken back. The same act again waits with the first;
   * another word about the same target takes the first one's place. Throws what `send` throws.
   */
  hold(key: string, what: string, send: () => Promise<unknown>): Promise<boolean> {
    for (const [id, before] of this.#waiting) {
      if (before.key !== key) continue;
      if (before.what === what) return before.done;
      this.undo(id);
    }
    this.#last += 1;
    const id = this.#last;
    let resolve = (_: boolean) => {};
    let reject = (_: unknown) => {};
    const done = new Promise<boolean>((yes, no) => {
      resolve = yes;
      reject = no;
    });
    const fail = (error: unknown) => {
      this.#keep(id, what, error);
      reject(error);
    };
    this.#waiting.set(id, {
      key,
      what,
      due: this.#now() + 1_000 * UNDO_S,
      send: () => send().then(() => resolve(true), fail),
      drop: () => resolve(false),
      done,
      timer: setInterval(() => this.look(), LOOK_MS),
    });
    this.#show();
    return done;
  }

  undo(id: number): void {
    this.#take(id)?.drop();
  }

  sendNow(id: number): void {
    this.#take(id)?.send();
  }

  /** The failure was read. */
  dismiss(id: number): void {
    this.failed.value = this.failed.value.filter((act) => act.id !== id);
  }

  /** Let no time pass, or let it go on. */
  pause(on: boolean): void {
    if (on === this.paused.value) return;
    if (on) this.#pausedAt = performance.now();
    else this.#stood += performance.now() - this.#pausedAt;
    this.paused.value = on;
  }

  /** By the clock: the timers of a hidden page are late. */
  look(): void {
    for (const [id, { due }] of this.#waiting) if (this.#secondsTo(due) <= 0) this.sendNow(id);
    this.#show();
  }

  #now(): number {
    return (this.paused.value ? this.#pausedAt : performance.now()) - this.#stood;
  }

  /** Begun ones count; a timer may fire a little early. */
  #secondsTo(due: number): number {
    return Math.ceil((due - this.#now() - TIMER_EARLY_MS) / 1_000);
  }

  #show(): void {
    const seen = this.acts.value;
    const acts = [...this.#waiting].map(([id, { what, due }]) => {
      return { id, what, left: this.#secondsTo(due) };
    });
    const same = acts.length === seen.length && acts.every((act, i) => isSame(act, seen[i]));
    if (!same) this.acts.value = acts;
  }

  #keep(id: number, what: string, error: unknown): void {
    if (error instanceof ApiError) this.failed.value = [...this.failed.value, { id, what, error }];
  }

  #take(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id);
    clearInterval(waiting?.timer);
    this.#waiting.delete(id);
    this.#show();
    return waiting;
  }
}

function isSame(act: HeldBack, seen: HeldBack | undefined): boolean {
  return act.id === seen?.id && act.left === seen.left;
}
