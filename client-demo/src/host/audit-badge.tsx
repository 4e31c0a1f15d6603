/** The audit at a glance: the equation in green, the first problem in red. */

import { useEffect } from "preact/hooks";
import { type Key, t } from "../i18n";
import { zh } from "../i18n/zh";
import { count } from "../ui/format";
import { showBook } from "./book-tabs";
import type { Desk } from "./desk";
import { type Equation, type Verdict, verdictOf } from "./equation";
import type { Problem } from "./number-types";

/** `data-audit`: the verdict's kind. A click opens the table; news of sales ask for a new audit. */
export function AuditBadge({ desk }: { desk: Desk }) {
  const verdict = verdictNow(desk);
  const started = desk.numbers.started.value.length;
  useEffect(() => {
    if (started > 0) void desk.numbers.audit.ask();
  }, [started, desk.status.value]);
  return (
    <button
      type="button"
      class={`audit-badge audit-${verdict.kind}`}
      data-audit={verdict.kind}
      title={t("audit.open")}
      onClick={() => showBook("audit")}
    >
      <i aria-hidden="true" />
      <span>
        {verdictText(verdict)} <Age desk={desk} />
      </span>
    </button>
  );
}

/** How old the audit is: the server makes them only as often as it can afford. */
function Age({ desk }: { desk: Desk }) {
  const audited = desk.numbers.audit.reading.value?.value.at;
  if (audited === undefined) return null;
  const age = Math.max(0, desk.second.value - audited);
  return <small>{t("audit.age", { n: Math.floor(age / 1_000) })}</small>;
}

export function verdictNow(desk: Desk): Verdict {
  const { audit, started } = desk.numbers;
  return verdictOf({
    started: started.value,
    reading: audit.reading.value,
    error: audit.error.value,
    now: desk.second.value,
  });
}

/** The equation, or the first problem, or why nothing can be said. */
export function verdictText(verdict: Verdict): string {
  switch (verdict.kind) {
    case "ok":
      return equationText(verdict.equation);
    case "bad":
      return [t("audit.problems", { n: verdict.found }), problemText(verdict.first)]
        .filter(Boolean)
        .join(" · ");
    case "stale":
      return t("audit.stale");
    default:
      return t(`audit.badge.${verdict.kind}`);
  }
}

/** "100 = 37 left + 3 to be paid + 60 sold" in the page's language. */
export function equationText({ total, terms }: Equation): string {
  const parts = terms.map(({ place, units }) =>
    t("audit.term", { n: count(units), place: t(`audit.place.${place}`) }),
  );
  return t("audit.equation", { total: count(total), terms: parts.join(" + ") });
}

/** Its kind in words; a kind this page does not know by its name. */
export function problemText(problem: Problem | undefined): string {
  if (!problem) return "";
  const key = `audit.kind.${problem.kind}`;
  return key in zh ? t(key as Key) : problem.kind;
}
