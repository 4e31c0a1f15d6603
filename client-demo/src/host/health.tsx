/** How fresh the console's picture is, and what the server still has to store. */

import { useComputed } from "@preact/signals";
import { t } from "../i18n";
import { count } from "../ui/format";
import type { Desk } from "./desk";
import { type Fact, type Heard, healthOf, worst } from "./health-facts";
import type { Poll } from "./poll";

/** `data-health`: the worst grade. */
export function HealthStrip({ desk }: { desk: Desk }) {
  const { pulse, readiness } = desk.numbers;
  const link = useComputed(() => desk.live.state.value.link);
  const isOn = desk.status.value === "live" || desk.status.value === "paused";
  const facts = healthOf({
    link: link.value,
    pulse: isOn ? heard(pulse) : null,
    readiness: heard(readiness),
    now: desk.second.value,
  });
  const grade = worst(facts);
  return (
    <ul class={`health health-${grade}`} data-health={grade} aria-label={t("health.title")}>
      <li class={`health-${grade}`}>
        <i aria-hidden="true" />
        <b>{t(`health.${grade}`)}</b>
      </li>
      {facts.map((fact) => (
        <li key={fact.name} class={`health-${fact.grade}`} data-fact={fact.name}>
          {factText(fact)}
        </li>
      ))}
    </ul>
  );
}

function heard<T>({ reading, error }: Poll<T>): Heard<T> {
  return { reading: reading.value, error: error.value };
}

function factText(fact: Fact): string {
  const { name, grade, ms = 0, n = 0, failed } = fact;
  const s = (ms / 1_000).toFixed(ms < 10_000 ? 1 : 0);
  switch (name) {
    case "frame":
      if (grade === "ok") return t("health.frame_live");
      return fact.ms === undefined ? t("health.frame_none") : t("health.frame", { s });
    case "numbers":
      return fact.ms === undefined ? t("health.numbers_none") : t("health.numbers", { s });
    case "gate":
      return t("health.rebuilding");
    case "backlog":
      return n > 0 ? t("health.backlog_old", { n: count(n), s }) : t("health.backlog", { n });
    case "pending":
      return t("health.pending", { n: count(n) });
    case "parts":
      if (!failed) return t("health.parts_unknown");
      return failed.length === 0 ? t("health.parts_ok") : failed.map(partText).join(" · ");
  }
}

const PROPER_NAMES: Readonly<Record<string, string>> = {
  redis: "Redis",
  postgresql: "PostgreSQL",
};

function partText(part: string): string {
  return t("health.part_failed", { part: PROPER_NAMES[part] ?? part });
}
