/** Danmaku cut to what can be listened to: little, and never faster than it is heard. */

import type { ChatLine, LiveSession } from "../live";

export const CHAT_EVERY_MS = 5_000;
const CHAT_LINES_MAX = 3;

export interface ChatDigest {
  /** The newest lines, oldest first. */
  lines: readonly ChatLine[];
  /** Lines that came too and are not read. */
  more: number;
}

/** Tell `say` what came, if anything, every CHAT_EVERY_MS while the page is seen. Returns the end. */
export function followChat(
  session: Pick<LiveSession, "onLines">,
  say: (digest: ChatDigest) => void,
): () => void {
  let fresh: ChatLine[] = [];
  let came = 0;
  const stop = session.onLines((lines) => {
    if (document.hidden) return;
    fresh = [...fresh, ...lines].slice(-CHAT_LINES_MAX);
    came += lines.length;
  });
  const timer = setInterval(() => {
    if (came > 0) say({ lines: fresh, more: came - fresh.length });
    fresh = [];
    came = 0;
  }, CHAT_EVERY_MS);
  return () => {
    stop();
    clearInterval(timer);
  };
}
