/** Lines of the viewer's own that did not arrive and were sent once more. */

import type { ChatEntry } from "../live";

/** `chat` without those of its undelivered lines that a newer own line says again. */
export function withoutRepeated(chat: readonly ChatEntry[]): readonly ChatEntry[] {
  if (!chat.some(({ own }) => own === "unsent")) return chat;
  const newest = new Map<string, ChatEntry>();
  for (const entry of chat) if (entry.own !== null) newest.set(entry.line.text, entry);
  return chat.filter((entry) => entry.own !== "unsent" || newest.get(entry.line.text) === entry);
}
