/** The live session as signals: one session per page, its state painted once per frame. */

import { type ReadonlySignal, type Signal, signal } from "@preact/signals";
import { type ClaimRecord, LiveSession, type LiveState } from "../live";

export interface Live {
  session: LiveSession;
  state: ReadonlySignal<LiveState>;
  /** Server time in ms, moving ten times a second while the page is visible. */
  now: ReadonlySignal<number>;
}

const CLOCK_MS = 100;

export function socketUrl(show: string): string {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return `${scheme}//${location.host}/ws/${show}`;
}

/** Connect to `show`; with a token also sign in. */
export function openLive(show: string, token: string): Live {
  const session = new LiveSession({ url: socketUrl(show), show });
  const state = signal(session.state);
  const now = signal(session.clock.now());
  paint(session, state);
  atFullSteps(session, () => {
    if (!document.hidden) now.value = session.clock.now();
  });
  wakeWithPage(session);
  if (token) session.signIn(token);
  session.start();
  return { session, state, now };
}

/** Call `tick` at full tenths of a second of server time: all pages open a button together. */
function atFullSteps(session: LiveSession, tick: () => void): void {
  const wait = CLOCK_MS - (session.clock.now() % CLOCK_MS);
  setTimeout(() => {
    tick();
    atFullSteps(session, tick);
  }, wait);
}

/** At most one new state per animation frame; none at all while the page is hidden. */
function paint(session: LiveSession, state: Signal<LiveState>): void {
  let asked = false;
  session.subscribe(() => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      state.value = session.state;
    });
  });
}

function wakeWithPage(session: LiveSession): void {
  addEventListener("online", () => session.wake());
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) session.wake();
  });
}

/** Claims of `sale`, newest last. */
export function claimsOf(state: LiveState, sale: number): ClaimRecord[] {
  return state.claims.filter((record) => record.sale === sale);
}
