/** The polite region that reads danmaku out: the list beside it is too fast for that. */

import { useEffect, useState } from "preact/hooks";
import { t } from "../i18n";
import type { LiveSession } from "../live";
import { type ChatDigest, followChat } from "./chat-digest";

export function ChatNews({ session }: { session: LiveSession }) {
  const [text, setText] = useState("");
  useEffect(() => followChat(session, (digest) => setText(textOf(digest))), [session]);
  return (
    <p class="sr-only" role="status" data-chat-news>
      {text}
    </p>
  );
}

function textOf({ lines, more }: ChatDigest): string {
  const said = lines.map(({ name, user, text }) => t("chat.said", { name: name || user, text }));
  return [...(more > 0 ? [t("chat.news", { n: more })] : []), ...said].join(" ");
}
