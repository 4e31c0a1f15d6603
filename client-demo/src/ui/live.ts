/** The live session as signals: one session per page, its state painted once per frame. */

import { computed, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import { type ClaimRecord, LiveSession, type LiveState } from "../live";

export interface Live {
  session: LiveSession;
  state: ReadonlySignal<LiveState>;
  /**
   * Server time in ms at full steps: ten times a second while a sale is about to open or to
   * close, else once a second. It stands still while the page is hidden.
   */
  now: ReadonlySignal<number>;
  /** `now` cut to the full second: changes once a second, for all that shows whole seconds. */
  second: ReadonlySignal<number>;
}

const FINE_MS = 100;
const COARSE_MS = 1_000;
/** So long before a sale opens or closes the fine steps begin; they end a second after it. */
const FINE_BEFORE_MS = 10_000;
const FINE_AFTER_MS = 1_000;

/** The show of a page's path (`/watch/{show}`); one that is no valid escape is taken as it is. */
export function showOf(path: string): string {
  const name = path.split("/")[2] ?? "";
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

export function socketUrl(show: string): string {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return `${scheme}//${location.host}/ws/${encodeURIComponent(show)}`;
}

/** Connect to `show`; with a token also sign in. */
export function openLive(show: string, token: string): Live {
  const session = new LiveSession({ url: socketUrl(show), show });
  const state = signal(session.state);
  const now = signal(session.clock.now());
  const second = computed(() => Math.floor(now.value / 1_000) * 1_000);
  paint(session, state);
  runClock(session, now);
  if (token) session.signIn(token);
  session.start();
  return { session, state, now, second };
}

/** Move `now` while the page is visible. */
function runClock(session: LiveSession, now: Signal<number>): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const tick = () => {
    now.value = session.clock.now();
    timer = setTimeout(tick, untilNextStep(now.value, session.state));
  };
  const turn = () => {
    clearTimeout(timer);
    if (!document.hidden) tick();
  };
  document.addEventListener("visibilitychange", turn);
  turn();
}

/** Steps are full ones of server time: all pages open a button together. */
export function untilNextStep(now: number, state: LiveState): number {
  const step = isNearTurn(now, state) ? FINE_MS : COARSE_MS;
  return step - (now % step);
}

/** Whether a sale is about to open or to close, or has just done so. */
function isNearTurn(now: number, { values }: LiveState): boolean {
  return Object.values(values.sales).some(({ opens_at, closes_at }) =>
    [opens_at, closes_at].some((at) => at - now < FINE_BEFORE_MS && now - at < FINE_AFTER_MS),
  );
}

/** At most one new state per animation frame; none at all while the page is hidden. */
function paint(session: LiveSession, state: Signal<LiveState>): void {
  let asked = false;
  const ask = () => {
    if (asked || document.hidden) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      state.value = session.state;
    });
  };
  session.subscribe(ask);
  document.addEventListener("visibilitychange", ask);
}

/** Claims of `sale`, newest last. */
export function claimsOf(state: LiveState, sale: number): ClaimRecord[] {
  return state.claims.filter((record) => record.sale === sale);
}
