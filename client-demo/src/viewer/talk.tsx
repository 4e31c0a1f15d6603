/** The chat list and the bar below it: writing, liking, goods and orders. */

import { computed } from "@preact/signals";
import { useRef, useState } from "preact/hooks";
import { t, textOf } from "../i18n";
import type { ChatEntry } from "../live";
import { CHAT_CHARS_MAX } from "../live/limits";
import { count } from "../ui/format";
import { Bag, Bubble, Down, Heart, Receipt, Send } from "../ui/icons";
import { wantsLessMotion } from "./danmaku";
import { like, live, me, sheet, state, values } from "./page";
import { prefs } from "./prefs";
import { withoutRepeated } from "./said-again";

const chat = computed(() => withoutRepeated(state.value.chat));
const folded = computed(() => state.value.folded);
const myUser = computed(() => me.value?.user);

/** Scrolled up by so much, the newest lines are out of sight. */
const AWAY_PX = 48;

/** The list sticks to its newest line by CSS (column-reverse), until somebody scrolls up. */
export function ChatList() {
  const list = useRef<HTMLDivElement>(null);
  const [away, setAway] = useState(false);
  return (
    <div class="chat">
      <SlowMode />
      <div
        ref={list}
        class="chat-list"
        role="log"
        aria-live="off"
        aria-label={t("chat.title")}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a list that scrolls must take the keyboard
        tabIndex={0}
        onScroll={(event) => setAway(event.currentTarget.scrollTop < -AWAY_PX)}
      >
        <ol>
          {chat.value.length === 0 && <li class="chat-none">{t("chat.empty")}</li>}
          {chat.value.map((entry) => (
            <Line key={entry.key} entry={entry} />
          ))}
        </ol>
      </div>
      {away && (
        <button
          type="button"
          class="chat-newest"
          onClick={() => list.current?.scrollTo({ top: 0 })}
        >
          <Down />
          {t("chat.newest")}
        </button>
      )}
      {folded.value > 0 && (
        <p class="chat-folded">{t("chat.folded", { n: count(folded.value) })}</p>
      )}
    </div>
  );
}

function SlowMode() {
  const seconds = values.value.room?.slow_mode_s ?? 0;
  if (seconds === 0) return null;
  return <p class="chat-note">{t("chat.slow_mode", { n: seconds })}</p>;
}

/** Drawn again only for another entry: it reads a signal, so it is compared by its props. */
function Line({ entry }: { entry: ChatEntry }) {
  const { line, own } = entry;
  const mine = own !== null || line.user === myUser.value;
  return (
    <li class={mine ? "line line-own" : "line"} data-own={ownState(entry)}>
      <RoleMark role={line.role} />
      <b>{line.name || line.user}</b>
      <span class="line-text">{line.text}</span>
      <OwnNote own={own} text={line.text} />
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

function OwnNote({ own, text }: { own: ChatEntry["own"]; text: string }) {
  switch (own) {
    case null:
    case "shown":
      return null;
    case "sending":
      return <small class="note">{t("chat.sending")}</small>;
    case "sent":
      return <small class="note">{t("chat.sent")}</small>;
    case "folded":
      return <small class="note">{t("chat.own_folded")}</small>;
    case "unsent":
      return (
        <small class="note note-bad">
          {t("chat.unsent")}
          <button type="button" class="again" onClick={() => live.session.chat(text)}>
            {t("chat.again")}
          </button>
        </small>
      );
    default:
      return <small class="note note-bad">{t("chat.refused", { why: textOf(own.refusal) })}</small>;
  }
}

export function Bar() {
  return (
    <footer class="bar">
      <BagButton />
      <Composer />
      <button
        type="button"
        class={prefs.value.shown ? "tool" : "tool tool-off"}
        aria-label={t("danmaku.settings")}
        onClick={() => (sheet.value = "danmaku")}
      >
        <Bubble />
      </button>
      <button
        type="button"
        class="tool"
        aria-label={t("orders.short")}
        onClick={() => (sheet.value = "orders")}
      >
        <Receipt />
      </button>
      <LikeButton />
    </footer>
  );
}

function BagButton() {
  const goods = values.value.runlist?.products.length ?? 0;
  return (
    <button
      type="button"
      class="tool tool-bag"
      aria-label={goods > 0 ? `${t("goods")} ${goods}` : t("goods")}
      onClick={() => (sheet.value = "goods")}
    >
      <Bag />
      {goods > 0 && <i class="badge">{goods}</i>}
    </button>
  );
}

function LikeButton() {
  const total = values.value.likes?.total ?? 0;
  const label = t("like", { n: count(total) });
  const tap = (event: { currentTarget: HTMLElement }) => {
    like();
    if (!wantsLessMotion()) event.currentTarget.animate(PULSE, PULSE_MS);
  };
  return (
    <button type="button" class="tool tool-like" onClick={tap} aria-label={label}>
      <Heart />
      <span data-likes={total}>{count(total)}</span>
    </button>
  );
}

const PULSE = { transform: ["scale(1)", "scale(1.22)", "scale(1)"] };
const PULSE_MS = 220;

function Composer() {
  const [text, setText] = useState("");
  const signedIn = me.value !== null;
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
