/** Which lines of the room the host's lane shows. */

import type { ChatEntry } from "../live";

// A question mark of either width, or the commonest Chinese question words (ma, duo shao).
const QUESTION = /[?\uff1f]|\u5417|\u591a\u5c11/;

export function isQuestion(text: string): boolean {
  return QUESTION.test(text);
}

/** Those of `entries` that were there when the list was stopped; what was removed since is gone. */
export function stoppedLines(
  entries: readonly ChatEntry[],
  stoppedAt: ReadonlySet<string>,
): readonly ChatEntry[] {
  return entries.filter((entry) => stoppedAt.has(entry.key));
}
