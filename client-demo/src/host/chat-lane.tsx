/** The danmaku lane: what the room says, and what is done about a line or its writer. */

import { useState } from "preact/hooks";
import { t } from "../i18n";
import type { ChatEntry } from "../live";
import type { ApiError } from "../ui/api";
import { ChatNews } from "../ui/chat-news";
import { count } from "../ui/format";
import { Failure } from "../ui/parts";
import type { Desk } from "./desk";
import { ActButton } from "./form";
import { isQuestion, stoppedLines } from "./lane";

const MUTE_MINUTES = 10;

export function ChatLane({ desk }: { desk: Desk }) {
  const [error, setError] = useState<ApiError | null>(null);
  const [questions, setQuestions] = useState(false);
  const [stoppedAt, setStoppedAt] = useState<ReadonlySet<string> | null>(null);
  const { chat, folded } = desk.live.state.value;
  const wanted = questions ? chat.filter((entry) => isQuestion(entry.line.text)) : chat;
  const shown = stoppedAt ? stoppedLines(wanted, stoppedAt) : wanted;
  const stop = () => setStoppedAt((before) => before ?? new Set(chat.map((entry) => entry.key)));
  const goOn = () => setStoppedAt(null);
  return (
    <>
      <header class="row">
        <h2>{t("mod.title")}</h2>
        <label class="toggle">
          <input
            type="checkbox"
            checked={questions}
            onChange={(event) => setQuestions(event.currentTarget.checked)}
          />
          <span>{t("mod.questions")}</span>
        </label>
      </header>
      {/* biome-ignore lint/a11y/noStaticElementInteractions: pointer and focus only hold the list still */}
      <div
        class="lane"
        onMouseEnter={stop}
        onMouseLeave={goOn}
        onFocusIn={stop}
        onFocusOut={({ currentTarget, relatedTarget }) => {
          if (!currentTarget.contains(relatedTarget as Node | null)) goOn();
        }}
      >
        <div
          class="room-list"
          role="log"
          aria-live="off"
          aria-label={t("chat.title")}
          // biome-ignore lint/a11y/noNoninteractiveTabindex: a list that scrolls must take the keyboard
          tabIndex={0}
        >
          <ol>
            {shown.length === 0 && (
              <li class="empty">{t(questions ? "mod.no_questions" : "chat.empty")}</li>
            )}
            {shown.map((entry) => (
              <Line key={entry.key} desk={desk} entry={entry} onError={setError} />
            ))}
          </ol>
        </div>
        <ChatNews session={desk.live.session} />
        {stoppedAt && <Stopped missed={wanted.length - shown.length} onGoOn={goOn} />}
      </div>
      {folded > 0 && <p class="help">{t("chat.folded", { n: count(folded) })}</p>}
      <Failure error={error} />
    </>
  );
}

/** The list stands still under the pointer and around the focus, so that a click hits the line it was meant for. */
function Stopped({ missed, onGoOn }: { missed: number; onGoOn: () => void }) {
  return (
    <button type="button" class="lane-stopped" onClick={onGoOn}>
      {missed > 0 ? t("mod.frozen", { n: count(missed) }) : t("mod.paused")}
    </button>
  );
}

interface LineProps {
  desk: Desk;
  entry: ChatEntry;
  onError: (error: ApiError | null) => void;
}

function Line({ desk, entry, onError }: LineProps) {
  const { id, user, name, role, text } = entry.line;
  const called = name || user;
  const ban = () => desk.moderate("ban", { user });
  return (
    <li class={isQuestion(text) ? "room-line room-question" : "room-line"} data-line={id}>
      <p>
        <b title={user}>{called}</b> <span>{text}</span>
      </p>
      <span class="room-tools">
        <ActButton
          class="tiny"
          label={t("mod.delete")}
          act={() => desk.deleteLine(id)}
          onError={onError}
        />
        {role === "viewer" && (
          <>
            <ActButton
              class="tiny"
              label={t("mod.mute")}
              title={t("mod.mute_for", { n: MUTE_MINUTES })}
              act={() => desk.moderate("mute", { user, seconds: MUTE_MINUTES * 60 })}
              onError={onError}
            />
            <ActButton
              class="tiny"
              label={t("mod.kick")}
              act={() => desk.kick(user)}
              onError={onError}
            />
            <ActButton
              class="tiny danger"
              label={t("mod.ban")}
              act={() => desk.undo.run({ act: "ban" }, user, t("undo.ban", { name: called }), ban)}
              onError={onError}
            />
          </>
        )}
      </span>
    </li>
  );
}
