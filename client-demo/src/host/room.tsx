/** The room as the host sees it: the lane, slow mode, refused words, the muted and the banned. */

import { useState } from "preact/hooks";
import { t } from "../i18n";
import type { ApiError } from "../ui/api";
import { timeOfDay } from "../ui/format";
import { Failure } from "../ui/parts";
import { ChatLane } from "./chat-lane";
import type { Desk } from "./desk";
import { ActButton, ActForm, Field, LinesField, UnitsField } from "./form";
import type { ChatPolicy } from "./types";

const SLOW_CHOICES_S = [0, 3, 5, 10, 30] as const;

export function Room({ desk }: { desk: Desk }) {
  const policy = desk.policy.value;
  return (
    <section class="card room" id="room" tabIndex={-1}>
      <ChatLane desk={desk} />
      {policy && <SlowMode desk={desk} policy={policy} />}
      {policy && <Rules desk={desk} policy={policy} />}
      <ByUser desk={desk} />
    </section>
  );
}

interface PolicyProps {
  desk: Desk;
  policy: ChatPolicy;
}

function SlowMode({ desk, policy }: PolicyProps) {
  const [error, setError] = useState<ApiError | null>(null);
  return (
    <>
      <fieldset class="choice">
        <legend>{t("mod.slow")}</legend>
        {SLOW_CHOICES_S.map((seconds) => (
          <ActButton
            key={seconds}
            class={seconds === policy.slow_mode_s ? "chosen" : ""}
            label={seconds === 0 ? t("mod.slow_off") : t("mod.slow_s", { n: seconds })}
            pressed={seconds === policy.slow_mode_s}
            act={() => desk.changePolicy(() => ({ slow_mode_s: seconds }))}
            onError={setError}
          />
        ))}
      </fieldset>
      {policy.pending && <p class="help pending">{t("mod.pending")}</p>}
      <Failure error={error} />
    </>
  );
}

function Rules({ desk, policy }: PolicyProps) {
  const add = (text: string) => {
    const given = text.split(/\s*\n\s*/).filter((word) => word !== "");
    return desk.changePolicy((now) => ({ words: [...new Set([...now.words, ...given])] }));
  };
  const remove = (gone: string) =>
    desk.changePolicy((now) => ({ words: now.words.filter((word) => word !== gone) }));
  return (
    <details>
      <summary>{t("mod.policy")}</summary>
      <ActForm
        class="inline"
        label={t("save")}
        act={(values) => desk.changePolicy(() => ({ slow_mode_s: Number(values.slow_mode_s) }))}
      >
        <UnitsField
          label={t("mod.slow_mode_s")}
          name="slow_mode_s"
          min={0}
          max={300}
          value={policy.slow_mode_s}
        />
      </ActForm>
      <ActForm label={t("mod.word_add")} clears act={({ words = "" }) => add(words.trim())}>
        <LinesField label={t("mod.words")} name="words" rows={3} required />
      </ActForm>
      <ul class="chips">
        {policy.words.map((word) => (
          <li key={word}>
            {word}
            <ActButton
              class="chip-off"
              label="×"
              title={t("mod.word_remove", { word })}
              act={() => remove(word)}
            />
          </li>
        ))}
      </ul>
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
      <OneUser
        label={t("mod.ban")}
        act={(user) =>
          desk.undo.run({ act: "ban" }, user, t("undo.ban", { name: user }), () =>
            desk.moderate("ban", { user }),
          )
        }
      />
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

function OneUser({ label, act }: { label: string; act: (user: string) => Promise<unknown> }) {
  return (
    <ActForm class="inline" label={label} clears act={({ user = "" }) => act(user.trim())}>
      <Field label={t("mod.user")} name="user" required maxLength={64} />
    </ActForm>
  );
}
