/** The room as the host sees it: chat with moderation per line, chat rules, muted and banned. */

import { useState } from "preact/hooks";
import { t } from "../i18n";
import type { ChatEntry } from "../live";
import type { ApiError } from "../ui/api";
import { count, timeOfDay } from "../ui/format";
import { Failure } from "../ui/parts";
import type { Desk } from "./desk";
import { ActButton, ActForm, Field, UnitsField } from "./form";

const MUTE_MINUTES = 10;

export function Room({ desk }: { desk: Desk }) {
  const [error, setError] = useState<ApiError | null>(null);
  const { chat, folded } = desk.live.state.value;
  return (
    <section class="card room">
      <h2>{t("mod.title")}</h2>
      <div
        class="room-list"
        role="log"
        aria-label={t("chat.title")}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a list that scrolls must take the keyboard
        tabIndex={0}
      >
        <ol>
          {chat.length === 0 && <li class="empty">{t("chat.empty")}</li>}
          {chat.map((entry) => (
            <Line key={entry.key} desk={desk} entry={entry} onError={setError} />
          ))}
        </ol>
      </div>
      {folded > 0 && <p class="help">{t("chat.folded", { n: count(folded) })}</p>}
      <Failure error={error} />
      <Rules desk={desk} />
      <ByUser desk={desk} />
    </section>
  );
}

interface LineProps {
  desk: Desk;
  entry: ChatEntry;
  onError: (error: ApiError | null) => void;
}

function Line({ desk, entry, onError }: LineProps) {
  const { user, name, role, text } = entry.line;
  return (
    <li class="room-line">
      <p>
        <b title={user}>{name || user}</b> <span>{text}</span>
      </p>
      {role === "viewer" && (
        <span class="room-tools">
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
            confirms
            act={() => desk.moderate("ban", { user })}
            onError={onError}
          />
        </span>
      )}
    </li>
  );
}

function Rules({ desk }: { desk: Desk }) {
  const policy = desk.policy.value;
  if (!policy) return null;
  const words = (text = "") => text.split(/\s*\n\s*/).filter((word) => word !== "");
  return (
    <details>
      <summary>{t("mod.policy")}</summary>
      <ActForm
        label={t("save")}
        act={(values) => desk.setPolicy(Number(values.slow_mode_s), words(values.words?.trim()))}
      >
        <UnitsField
          label={t("mod.slow_mode_s")}
          name="slow_mode_s"
          min={0}
          max={300}
          value={policy.slow_mode_s}
        />
        <label class="field">
          <span>{t("mod.words")}</span>
          <textarea name="words" rows={4} defaultValue={policy.words.join("\n")} />
        </label>
      </ActForm>
    </details>
  );
}

function ByUser({ desk }: { desk: Desk }) {
  const policy = desk.policy.value;
  const banned = policy?.banned ?? [];
  const muted = Object.entries(policy?.muted ?? {});
  return (
    <details>
      <summary>{t("mod.by_id")}</summary>
      <ActForm
        class="inline"
        label={t("mod.mute")}
        clears
        act={({ user = "", seconds }) =>
          desk.moderate("mute", { user: user.trim(), seconds: Number(seconds) })
        }
      >
        <Field label={t("mod.user")} name="user" required maxLength={64} />
        <UnitsField label={t("mod.seconds")} name="seconds" max={604_800} value={600} />
      </ActForm>
      <OneUser label={t("mod.kick")} act={(user) => desk.kick(user)} />
      <OneUser label={t("mod.ban")} act={(user) => desk.moderate("ban", { user })} />
      <ul class="users">
        {muted.map(([user, until]) => (
          <li key={user}>
            <span>
              {user} <small>{timeOfDay(until)}</small>
            </span>
            <ActButton
              class="tiny"
              label={t("mod.unmute")}
              act={() => desk.moderate("unmute", { user })}
            />
          </li>
        ))}
        {banned.map((user) => (
          <li key={user}>
            <span>{user}</span>
            <ActButton
              class="tiny"
              label={t("mod.unban")}
              act={() => desk.moderate("unban", { user })}
            />
          </li>
        ))}
      </ul>
    </details>
  );
}

function OneUser({ label, act }: { label: string; act: (user: string) => Promise<void> }) {
  return (
    <ActForm class="inline" label={label} clears act={({ user = "" }) => act(user.trim())}>
      <Field label={t("mod.user")} name="user" required maxLength={64} />
    </ActForm>
  );
}
