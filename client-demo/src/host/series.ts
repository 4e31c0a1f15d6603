/**
 * From totals to curves. What was not sampled is not drawn: a hole between two samples stays a
 * hole, and where a total fell (Redis was lost) there is no rate.
 */

import type { Pulse, Sample, Series } from "./number-types";

/** Samples in memory; beyond that all are asked for anew, which the server thins out. */
export const SAMPLES_MAX = 1_440;
/** Samples further apart than this many steps have a hole between them. */
const HOLE_STEPS = 2.5;
/** A column has one value for each `at` (s since 1970); null: not known. */
export type Column = readonly (number | null)[];

const PLAIN = ["online", "left", "held", "sold", "orders"] as const;
const RATES = ["likes", "lines", "claims"] as const;

export type Curve = (typeof PLAIN)[number] | (typeof RATES)[number] | "amount";

export interface Curves extends Readonly<Record<Curve, Column>> {
  at: readonly number[];
}

/** What to send as `after`: everything when nothing is known, or too much to keep. */
export function askFrom(known: Series | undefined): number {
  const samples = known?.samples ?? [];
  return samples.length < SAMPLES_MAX ? (samples.at(-1)?.at ?? 0) : 0;
}

/** `more` came after `known`. Steps differ: the older part may have been thinned out. */
export function joined(known: Series, more: Series): Series {
  const end = known.samples.at(-1)?.at ?? 0;
  const fresh = more.samples.filter((sample) => sample.at > end);
  return {
    step_s: Math.max(known.step_s, more.step_s),
    samples: fresh.length > 0 ? [...known.samples, ...fresh] : known.samples,
  };
}

type Point = Pick<Sample, "at" | "online" | "likes" | "lines" | "claims"> & Partial<Sample>;

/**
 * The curves of `series` since `from` (ms), ended by the newest pulse. `currency`: whose amounts.
 */
export function curves(series: Series, pulse: Pulse | null, currency: string, from = 0): Curves {
  const points: readonly Point[] = series.samples;
  const holeMs = HOLE_STEPS * 1_000 * series.step_s;
  const rows = points.flatMap((point, i) => rowsOf(points[i - 1], point, currency, holeMs));
  if (pulse && pulse.at > (points.at(-1)?.at ?? pulse.at)) {
    // Over a whole step: hubs report every few seconds, so a shorter time says little.
    const base = points.filter((point) => pulse.at - point.at >= 1_000 * series.step_s).at(-1);
    rows.push(...rowsOf(base, pulse, currency, holeMs));
  }
  const shown = rows.filter((row) => row.at * 1_000 >= from);
  const column = (name: Curve): Column => shown.map((row) => row[name] ?? null);
  const names = [...PLAIN, ...RATES, "amount"] as const;
  const columns = names.map((name) => [name, column(name)]);
  return { ...Object.fromEntries(columns), at: shown.map((row) => row.at) };
}

type Row = { at: number } & Partial<Record<Curve, number | null>>;

/** One row, with an empty one before it when there is a hole between the two points. */
function rowsOf(before: Point | undefined, point: Point, currency: string, holeMs: number): Row[] {
  const isHole = before !== undefined && point.at - before.at > holeMs;
  const row: Row = { at: point.at / 1_000 };
  for (const name of PLAIN) row[name] = point[name] ?? null;
  for (const name of RATES) row[name] = isHole ? null : rate(before, point, name);
  row.amount = amountOf(point, currency);
  return isHole ? [{ at: (before.at + holeMs / HOLE_STEPS) / 1_000 }, row] : [row];
}

/** null: not known, or kept from moderators, who get orders without amounts. */
function amountOf({ amounts, orders = 0 }: Point, currency: string): number | null {
  if (!amounts || (orders > 0 && Object.keys(amounts).length === 0)) return null;
  return amounts[currency] ?? 0;
}

/** Per second, from the sample before to this one; null at the start and after a fall. */
function rate(before: Point | undefined, point: Point, name: (typeof RATES)[number]) {
  if (!before || point[name] < before[name]) return null;
  return (1_000 * (point[name] - before[name])) / (point.at - before.at);
}

/** Each column on top of those after it: the first is the sum of all. */
export function stacked(columns: readonly Column[]): Column[] {
  return columns.map((column, i) =>
    column.map((_, row) => {
      const above = columns.slice(i).map((each) => each[row] ?? null);
      return above.includes(null) ? null : above.reduce<number>((all, one) => all + (one ?? 0), 0);
    }),
  );
}

/** Currencies of the takings, the one with most money first. */
export function currencies(amounts: Readonly<Record<string, number>>): string[] {
  return Object.keys(amounts).sort((a, b) => (amounts[b] ?? 0) - (amounts[a] ?? 0));
}

/** The newest value that is known; null when a hole came after it: it is not of now. */
export function newest(shown: Curves, name: Curve): number | null {
  const known = shown.at.map((_, row) => row).filter((row) => shown[name][row] !== null);
  const last = known.at(-1) ?? 0;
  return shown.online.slice(last).includes(null) ? null : (shown[name][last] ?? null);
}
