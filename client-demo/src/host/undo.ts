/**
 * Large acts wait before they are sent: the server cannot take back a stopped sale or a ban, so
 * the time for second thoughts comes first. Nothing is sent that was taken back, and nothing when
 * the page is left. What failed stays until it was read: who asked may be gone by then.
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
  /** By performance.now(), ms. */
  due: number;
  send: () => void;
  drop: () => void;
  done: Promise<boolean>;
  timer: ReturnType<typeof setInterval>;
}

export class UndoQueue {
  /** Oldest first. */
  readonly acts = signal<readonly HeldBack[]>([]);
  readonly failed = signal<readonly FailedAct[]>([]);
  readonly #waiting = new Map<number, Waiting>();
  #last = 0;

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
      due: performance.now() + 1_000 * UNDO_S,
      send: () => send().then(() => resolve(true), fail),
      drop: () => resolve(false),
      done,
      timer: setInterval(() => this.look(), 1_000),
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

  /** By the clock: the timers of a hidden page are late. */
  look(): void {
    for (const [id, { due }] of this.#waiting) if (secondsTo(due) <= 0) this.sendNow(id);
    this.#show();
  }

  #show(): void {
    const waiting = [...this.#waiting];
    this.acts.value = waiting.map(([id, { what, due }]) => ({ id, what, left: secondsTo(due) }));
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

/** Rounded: a timer may fire a little early. */
function secondsTo(due: number): number {
  return Math.round((due - performance.now()) / 1_000);
}
