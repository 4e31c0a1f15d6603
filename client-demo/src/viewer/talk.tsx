/** The chat list and the bar below it: writing, liking, goods and orders. */

import { useState } from "preact/hooks";
import { t, textOf } from "../i18n";
import type { ChatEntry } from "../live";
import { CHAT_CHARS_MAX } from "../live/limits";
import { count } from "../ui/format";
import { Bag, Bubble, Heart, Receipt, Send } from "../ui/icons";
import { danmakuShown, live, sheet, state, values } from "./page";

/** The list sticks to its newest line by CSS (column-reverse), until somebody scrolls up. */
export function ChatList() {
  const { chat, folded } = state.value;
  return (
    <div class="chat">
      <SlowMode />
      <div
        class="chat-list"
        role="log"
        aria-label={t("chat.title")}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a list that scrolls must take the keyboard
        tabIndex={0}
      >
        <ol>
          {chat.length === 0 && <li class="chat-none">{t("chat.empty")}</li>}
          {chat.map((entry) => (
            <Line key={entry.key} entry={entry} />
          ))}
        </ol>
      </div>
      {folded > 0 && <p class="chat-folded">{t("chat.folded", { n: count(folded) })}</p>}
    </div>
  );
}

function SlowMode() {
  const seconds = values.value.room?.slow_mode_s ?? 0;
  if (seconds === 0) return null;
  return <p class="chat-note">{t("chat.slow_mode", { n: seconds })}</p>;
}

function Line({ entry }: { entry: ChatEntry }) {
  const { line, own } = entry;
  const mine = own !== null || line.user === state.value.me?.user;
  return (
    <li class={mine ? "line line-own" : "line"} data-own={ownState(entry)}>
      <RoleMark role={line.role} />
      <b>{line.name || line.user}</b>
      <span class="line-text">{line.text}</span>
      <OwnNote own={own} />
    </li>
  );
}

function ownState({ own }: ChatEntry): string | undefined {
  if (own === null) return undefined;
  return typeof own === "string" ? own : "refused";
}

function RoleMark({ role }: { role: string }) {
  if (role !== "host" && role !== "moderator") return null;
  return <span class="role">{t(`chat.${role}`)}</span>;
}

function OwnNote({ own }: { own: ChatEntry["own"] }) {
  if (own === null || own === "shown") return null;
  if (own === "sending") return <small class="note">{t("chat.sending")}</small>;
  const text =
    own === "unsent" ? t("chat.unsent") : t("chat.refused", { why: textOf(own.refusal) });
  return <small class="note note-bad">{text}</small>;
}

export function Bar() {
  return (
    <footer class="bar">
      <button type="button" class="tool" onClick={() => (sheet.value = "goods")}>
        <Bag />
        <span>{t("goods")}</span>
      </button>
      <Composer />
      <button
        type="button"
        class="tool"
        aria-pressed={danmakuShown.value}
        aria-label={t(danmakuShown.value ? "danmaku.hide" : "danmaku.show")}
        onClick={() => (danmakuShown.value = !danmakuShown.value)}
      >
        <Bubble />
        <span>{t("chat.title")}</span>
      </button>
      <button type="button" class="tool" onClick={() => (sheet.value = "orders")}>
        <Receipt />
        <span>{t("orders.short")}</span>
      </button>
      <LikeButton />
    </footer>
  );
}

function LikeButton() {
  const total = values.value.likes?.total ?? 0;
  const label = t("like", { n: count(total) });
  return (
    <button type="button" class="tool tool-like" onClick={like} aria-label={label}>
      <Heart />
      <span data-likes={total}>{count(total)}</span>
    </button>
  );
}

function like(): void {
  if (state.value.me) live.session.like();
  else sheet.value = "sign_in";
}

function Composer() {
  const [text, setText] = useState("");
  const signedIn = state.value.me !== null;
  const submit = (event: Event) => {
    event.preventDefault();
    const line = text.trim();
    if (!line) return;
    live.session.chat(line);
    setText("");
  };
  if (!signedIn) {
    return (
      <button type="button" class="composer" onClick={() => (sheet.value = "sign_in")}>
        {t("chat.sign_in")}
      </button>
    );
  }
  return (
    <form class="composer" onSubmit={submit}>
      <input
        name="chat"
        value={text}
        maxLength={CHAT_CHARS_MAX}
        placeholder={t("chat.placeholder")}
        aria-label={t("chat.placeholder")}
        autoComplete="off"
        enterkeyhint="send"
        onInput={(event) => setText(event.currentTarget.value)}
      />
      <button type="submit" class="icon" aria-label={t("chat.send")} disabled={!text.trim()}>
        <Send />
      </button>
    </form>
  );
}
