/** The audit as one line: where all units of a show are, or what is wrong. */

import type { ApiError } from "../ui/api";
import type { Audit, Problem } from "./number-types";
import type { Reading } from "./poll";
import type { PoolBalance } from "./types";

/** Where a unit can be, as the audit counts (server/audit/report.py). */
export const PLACES = ["available", "reserved", "sold", "backlog", "pending_give", "dead"] as const;
export type Place = (typeof PLACES)[number];

/** These are always said; the others only when there is something in them. */
const ALWAYS = 3;

export interface Equation {
  total: number;
  terms: readonly { place: Place; units: number }[];
}

/** The units of all pools together. The terms add up to `total` unless the audit found otherwise. */
export function equationOf(pools: readonly PoolBalance[]): Equation {
  const sum = (units: (pool: PoolBalance) => number) =>
    pools.reduce((all, pool) => all + units(pool), 0);
  const terms = PLACES.map((place) => ({ place, units: sum((pool) => pool[place]) }));
  return {
    total: sum((pool) => pool.initial + pool.restocked - pool.lowered),
    terms: terms.filter(({ units }, i) => i < ALWAYS || units !== 0),
  };
}

export type Verdict =
  | { kind: "waiting" }
  | { kind: "failed" }
  | { kind: "stale" }
  | { kind: "empty" }
  | { kind: "ok"; equation: Equation }
  | { kind: "bad"; found: number; first: Problem | undefined };

/**
 * An older audit is no longer believed, whether or not the server still answers with it. It keeps
 * one for 9 times as long as it took: this is some 20 s of auditing.
 */
export const BELIEVED_MS = 180_000;

export interface Audited {
  /** Sales that were started, by their pools: each must be in the audit. */
  started: readonly number[];
  reading: Reading<Audit> | null;
  /** Why the newest audit failed. */
  error: ApiError | null;
  /** Server ms. */
  now: number;
}

/** What the badge says. A fault once found stays red however old it is. */
export function verdictOf({ started, reading, error, now }: Audited): Verdict {
  if (started.length === 0) return { kind: "empty" };
  if (!reading) return { kind: error ? "failed" : "waiting" };
  const audit = reading.value;
  if (!audit.ok) return { kind: "bad", found: audit.found, first: audit.problems[0] };
  if (now - audit.at > BELIEVED_MS) return { kind: "stale" };
  const audited = new Set(audit.pools.map(({ pool }) => pool));
  if (!started.every((sale) => audited.has(sale))) return { kind: "waiting" }; // made before them
  return { kind: "ok", equation: equationOf(audit.pools) };
}
