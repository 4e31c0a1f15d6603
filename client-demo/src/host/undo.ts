/**
 * Large acts wait before they are sent: the server cannot take back a stopped sale or a ban, so
 * the time for second thoughts comes first. Nothing is sent that was taken back, and nothing when
 * the page is left.
 */

import { signal } from "@preact/signals";
import { type Change, isLarge } from "./large";

export const UNDO_S = 5;
/** One more sends the oldest at once. */
export const HELD_BACK_MAX = 3;

/** An act that is not sent yet, and the whole seconds until it will be. */
export interface HeldBack {
  id: number;
  what: string;
  left: number;
}

interface Waiting {
  send: () => void;
  drop: () => void;
  timer: ReturnType<typeof setInterval>;
}

export class UndoQueue {
  /** Oldest first. */
  readonly acts = signal<readonly HeldBack[]>([]);
  readonly #waiting = new Map<number, Waiting>();
  #last = 0;

  /** Send at once, or hold back when the change is large. */
  run(change: Change, what: string, send: () => Promise<unknown>): Promise<unknown> {
    return isLarge(change) ? this.hold(what, send) : send();
  }

  /** Send after UNDO_S; false when it was taken back. Throws what `send` throws. */
  hold(what: string, send: () => Promise<unknown>): Promise<boolean> {
    const [oldest] = this.acts.value;
    if (oldest && this.acts.value.length === HELD_BACK_MAX) this.sendNow(oldest.id);
    this.#last += 1;
    const id = this.#last;
    this.acts.value = [...this.acts.value, { id, what, left: UNDO_S }];
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, {
        send: () => send().then(() => resolve(true), reject),
        drop: () => resolve(false),
        timer: setInterval(() => this.#tick(id), 1_000),
      });
    });
  }

  undo(id: number): void {
    this.#take(id)?.drop();
  }

  sendNow(id: number): void {
    this.#take(id)?.send();
  }

  #tick(id: number): void {
    const counted = this.acts.value.map((act) =>
      act.id === id ? { ...act, left: act.left - 1 } : act,
    );
    if (counted.some((act) => act.id === id && act.left <= 0)) this.sendNow(id);
    else this.acts.value = counted;
  }

  #take(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id);
    clearInterval(waiting?.timer);
    this.#waiting.delete(id);
    this.acts.value = this.acts.value.filter((act) => act.id !== id);
    return waiting;
  }
}
