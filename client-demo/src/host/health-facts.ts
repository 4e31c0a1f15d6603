/** How fresh the console's picture is, judged from what is known. */

import type { Link } from "../live/reducer";
import type { Pulse, Readiness } from "./number-types";
import type { Reading } from "./poll";

export type Grade = "ok" | "warn" | "bad";

/** One thing of the strip. `ms`, `n`: its figures, whichever has a meaning for it. */
export interface Fact {
  name: "frame" | "numbers" | "backlog" | "pending" | "parts";
  grade: Grade;
  ms?: number;
  n?: number;
  failed?: readonly string[];
}

const WARN_MS = 2_000;
const BAD_MS = 10_000;

export interface Known {
  link: Link;
  /** null: not heard yet, or the show is not on. */
  pulse: Reading<Pulse> | null;
  readiness: Readiness | null;
  now: number;
}

export function healthOf({ link, pulse, readiness, now }: Known): Fact[] {
  return [
    frameOf(link, now),
    ...(pulse ? numbersOf(pulse, now) : []),
    ...(readiness ? [partsOf(readiness)] : []),
  ];
}

/** They are asked for every two seconds: an old answer is a fault of its own. */
function numbersOf({ value, at }: Reading<Pulse>, now: number): Fact[] {
  const age = now - at;
  const { pending } = value;
  return [
    ...(age >= BAD_MS ? [{ name: "numbers", grade: "bad", ms: age } as const] : []),
    backlogOf(value),
    { name: "pending", grade: pending > 0 ? "warn" : "ok", n: pending },
  ];
}

const ORDER: readonly Grade[] = ["ok", "warn", "bad"];

export function worst(facts: readonly Fact[]): Grade {
  return facts.reduce<Grade>(
    (all, { grade }) => (ORDER.indexOf(grade) > ORDER.indexOf(all) ? grade : all),
    "ok",
  );
}

export function gradeOf(ms: number): Grade {
  return ms >= BAD_MS ? "bad" : ms >= WARN_MS ? "warn" : "ok";
}

/** A live connection is never silent for longer than the session allows. */
function frameOf(link: Link, now: number): Fact {
  if (link.state === "live") return { name: "frame", grade: "ok" };
  if (!("heardAt" in link) || link.heardAt === 0) return { name: "frame", grade: "bad" };
  const ms = Math.max(0, now - link.heardAt);
  return { name: "frame", grade: link.state === "offline" ? "bad" : gradeOf(ms), ms };
}

function backlogOf({ backlog, oldest_ms }: Pulse): Fact {
  const grade = backlog > 0 ? gradeOf(oldest_ms) : "ok";
  return { name: "backlog", grade, n: backlog, ms: oldest_ms };
}

function partsOf({ ready, parts }: Readiness): Fact {
  const failed = Object.keys(parts).filter((part) => parts[part] !== "ok");
  return { name: "parts", grade: ready ? "ok" : "bad", failed };
}
