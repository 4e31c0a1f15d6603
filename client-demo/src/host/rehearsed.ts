/** What a rehearsal found, as the console tells it: from summary.json to figures and a curve. */

import type { Key } from "../i18n";

/** Of summary.json (docs: the load tester) only what is shown here. Latencies in ms. */
export interface Summary {
  counts: Readonly<Record<string, number>>;
  measures: Readonly<Record<string, { all: { count: number; p50: number; p99: number } }>>;
  audit: { scope: "full" | "clients" | "none"; ok: boolean; findings: Finding[] };
  honesty: { valid: boolean };
  series: { t_s: number; values: Readonly<Record<string, number>> }[];
  live_room: LiveRoom | null;
}

export interface Finding {
  name: string;
  zh: string;
  en: string;
  count: number;
}

interface LiveRoom {
  reply_before: number;
  reply_during: number;
}

export interface Figure {
  label: Key;
  value: string;
}

const LATENCIES = ["claim_held", "claim_confirmed", "stale"] as const;
const COUNTS = ["held", "confirmed", "refused", "errors"] as const;

/** Counts, then the slowest of a hundred; what was not measured is left out. */
export function figuresOf(summary: Summary): Figure[] {
  const counted = COUNTS.filter((name) => summary.counts[name] !== undefined).map((name) => ({
    label: `rehearsal.${name}` as const,
    value: String(summary.counts[name]),
  }));
  const timed = LATENCIES.filter((name) => (summary.measures[name]?.all.count ?? 0) > 0).map(
    (name) => ({
      label: `rehearsal.${name}` as const,
      value: milliseconds(summary.measures[name]?.all.p99 ?? 0),
    }),
  );
  const live = summary.live_room;
  const felt = live
    ? [
        {
          label: "rehearsal.live_room" as const,
          value: `${milliseconds(live.reply_before)} → ${milliseconds(live.reply_during)}`,
        },
      ]
    : [];
  return [...counted, ...timed, ...felt];
}

function milliseconds(ms: number): string {
  if (ms >= 10_000) return `${Math.round(ms / 1000)} s`;
  if (ms >= 1_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

export const CURVE = { width: 300, height: 60 } as const;

/** Points of an SVG polyline: units left over time, all of them at the top; "" when unknown. */
export function stockCurve(summary: Summary): string {
  const seen = summary.series.filter((point) => point.values.left !== undefined);
  const [first, last] = [seen[0], seen.at(-1)];
  if (!first || !last || first === last) return "";
  const most = Math.max(...seen.map((point) => point.values.left ?? 0), 1);
  const x = (t: number) => ((t - first.t_s) / (last.t_s - first.t_s)) * CURVE.width;
  const y = (left: number) => CURVE.height * (1 - left / most);
  const at = seen.map(({ t_s, values }) => `${round(x(t_s))},${round(y(values.left ?? 0))}`);
  return at.join(" ");
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
