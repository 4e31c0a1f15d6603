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

/** An audit that nobody could renew for so long is no longer believed. */
const BELIEVED_MS = 60_000;

export interface Audited {
  /** Whether the show has units at all. */
  hasStock: boolean;
  reading: Reading<Audit> | null;
  /** Why the newest audit failed. */
  error: ApiError | null;
  now: number;
}

/** What the badge says. A fault once found stays red however old it is. */
export function verdictOf({ hasStock, reading, error, now }: Audited): Verdict {
  if (!hasStock) return { kind: "empty" };
  if (!reading) return { kind: error ? "failed" : "waiting" };
  const { value: audit, at } = reading;
  if (!audit.ok) return { kind: "bad", found: audit.found, first: audit.problems[0] };
  if (error && now - at > BELIEVED_MS) return { kind: "stale" };
  if (audit.pools.length === 0) return { kind: "waiting" }; // made before there was stock
  return { kind: "ok", equation: equationOf(audit.pools) };
}
