/** How fresh the console's picture is, judged from what is known. */

import type { Link } from "../live/reducer";
import type { ApiError } from "../ui/api";
import type { Pulse, Readiness } from "./number-types";
import type { Reading } from "./poll";

export type Grade = "ok" | "warn" | "bad";

/** One thing of the strip. `ms`, `n`, `failed`: its figures, whichever are known. */
export interface Fact {
  name: "frame" | "numbers" | "gate" | "backlog" | "pending" | "parts";
  grade: Grade;
  ms?: number;
  n?: number;
  failed?: readonly string[];
}

const WARN_MS = 2_000;
const BAD_MS = 10_000;

/** What was asked for: the newest answer, and why the newest question had none. */
export interface Heard<T> {
  reading: Reading<T> | null;
  error: ApiError | null;
}

export interface Known {
  link: Link;
  /** null: the show is not on. */
  pulse: Heard<Pulse> | null;
  readiness: Heard<Readiness>;
  /** Server ms. */
  now: number;
}

export function healthOf({ link, pulse, readiness, now }: Known): Fact[] {
  return [
    frameOf(link, now),
    ...(pulse ? numbersOf(pulse, now) : []),
    ...(isLost(readiness, now) ? [UNREACHABLE] : partsOf(readiness)),
  ];
}

const UNREACHABLE: Fact = { name: "parts", grade: "bad" };

/** Asked for in vain: an answer that is not renewed tells nothing about now. */
function isLost({ reading, error }: Heard<unknown>, now: number): boolean {
  return error !== null && (reading === null || now - reading.at >= BAD_MS);
}

/** They are asked for every two seconds: an old answer is a fault of its own, and so is none. */
function numbersOf({ reading, error }: Heard<Pulse>, now: number): Fact[] {
  if (!reading) return error ? [{ name: "numbers", grade: "bad" }] : [];
  const { value, at } = reading;
  const age = now - at;
  const { pending } = value;
  return [
    ...(age >= BAD_MS ? [{ name: "numbers", grade: "bad", ms: age } as const] : []),
    ...(value.gate === "rebuilding" ? [{ name: "gate", grade: "bad" } as const] : []),
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

function partsOf({ reading }: Heard<Readiness>): Fact[] {
  if (!reading) return [];
  const { ready, parts } = reading.value;
  const failed = Object.keys(parts).filter((part) => parts[part] !== "ok");
  return [{ name: "parts", grade: ready ? "ok" : "bad", failed }];
}
