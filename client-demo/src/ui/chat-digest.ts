/** Danmaku cut to what can be listened to: little, and never faster than it is heard. */

import type { ChatLine, LiveSession } from "../live";

export const CHAT_EVERY_MS = 5_000;
const CHAT_LINES_MAX = 3;
const KEPT_MAX = 200;

export interface ChatDigest {
  /** The newest lines, oldest first. */
  lines: readonly ChatLine[];
  /** Lines that came too and are not read. */
  more: number;
}

/** `fresh`, what came since the last time, cut to what can be listened to. */
export function digestOf(fresh: readonly ChatLine[]): ChatDigest {
  const lines = fresh.slice(-CHAT_LINES_MAX);
  return { lines, more: fresh.length - lines.length };
}

/** Tell `say` what came, if anything, every CHAT_EVERY_MS while the page is seen. Returns the end. */
export function followChat(
  session: Pick<LiveSession, "onLines">,
  say: (digest: ChatDigest) => void,
): () => void {
  let fresh: ChatLine[] = [];
  const stop = session.onLines((lines) => {
    if (!document.hidden) fresh = [...fresh, ...lines].slice(-KEPT_MAX);
  });
  const timer = setInterval(() => {
    if (fresh.length > 0) say(digestOf(fresh));
    fresh = [];
  }, CHAT_EVERY_MS);
  return () => {
    stop();
    clearInterval(timer);
  };
}
