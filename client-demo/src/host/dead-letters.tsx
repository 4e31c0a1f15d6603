/** Orders that could not be stored: nothing is shown while there are none and nothing failed. */

import { useEffect, useState } from "preact/hooks";
import { t } from "../i18n";
import type { ApiError } from "../ui/api";
import { dateTime } from "../ui/format";
import { attempt, Failure } from "../ui/parts";
import type { Desk } from "./desk";
import { ActButton } from "./form";
import type { DeadLetter } from "./types";

export function DeadLetters({ desk }: { desk: Desk }) {
  const [letters, setLetters] = useState<readonly DeadLetter[]>([]);
  const [error, setError] = useState<ApiError | null>(null);
  const load = async () => setLetters(await desk.deadLetters());
  useEffect(() => {
    attempt(load).then(setError);
  }, [desk.orderNews.value]);
  if (letters.length === 0 && !error) return null;
  const decide = (letter: DeadLetter, verb: "redrive" | "give-back") => async () => {
    await desk.decideDeadLetter(letter.dead_letter, verb);
    await load();
  };
  return (
    <section class="card">
      <h2>{t("dead.title")}</h2>
      <Failure error={error} />
      <ol class="acts">
        {letters.map((letter) => (
          <li key={letter.dead_letter} data-letter={letter.dead_letter}>
            <time>{dateTime(letter.at)}</time> {t("claim.units", { n: letter.units })} ·{" "}
            {t("dead.error")}: {letter.error} <code>{JSON.stringify(letter.content)}</code>
            <span class="row">
              <ActButton
                class="tiny"
                label={t("dead.redrive")}
                act={decide(letter, "redrive")}
                onError={setError}
              />
              <ActButton
                class="tiny"
                label={t("dead.give_back")}
                confirms
                act={decide(letter, "give-back")}
                onError={setError}
              />
            </span>
          </li>
        ))}
      </ol>
    </section>
  );
}
