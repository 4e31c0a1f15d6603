/**
 * A show's numbers (server/acts/number_views.py). Totals since the show began, never rates; money in
 * minor units by currency, times in ms.
 */

import type { AuditSummary, SaleStats } from "./types";

export type Amounts = Readonly<Record<string, number>>;

/** What is going on at this moment. `oldest_ms`: age of the oldest order not yet in the books. */
export interface Pulse {
  at: number;
  online: number;
  likes: number;
  lines: number;
  claims: number;
  backlog: number;
  oldest_ms: number;
  pending: number;
  gate: string;
}

/** One moment of a show, as it was kept. `held`: accepted or confirmed, and not paid. */
export interface Sample {
  at: number;
  online: number;
  likes: number;
  lines: number;
  claims: number;
  left: number;
  held: number;
  sold: number;
  orders: number;
  amounts: Amounts;
}

/** Oldest first; between two samples lie `step_s` seconds, unless some are missing. */
export interface Series {
  step_s: number;
  samples: readonly Sample[];
}

/**
 * What came while a product was pinned, until now if it still is. `online`: on average, 0: unknown;
 * `conversion_pm`: buyers per 1,000 of them, -1: unknown, or more than those.
 */
export interface PinWindow {
  product: number;
  title: string;
  since: number;
  until: number;
  online: number;
  buyers: number;
  orders: number;
  units: number;
  amounts: Amounts;
  conversion_pm: number;
}

/** `offered`: without what the host took back; `sold_out_after_ms` -1: it never was. */
export interface SaleSummary extends SaleStats {
  offered: number;
  opens_at: number;
  sold_out_after_ms: number;
}

export interface ShowSummary {
  show: string;
  title: string;
  started_at: number;
  ended_at: number;
  peak_online: number;
  peak_at: number;
  avg_online: number;
  likes: number;
  lines: number;
  claims: number;
  buyers: number;
  orders: number;
  units: number;
  amounts: Amounts;
  by_status: Readonly<Record<string, number>>;
  sales: readonly SaleSummary[];
  pins: readonly PinWindow[];
}

/** Something that is not as it must be: `kind` of server/audit/report.py, `detail` in English. */
export interface Problem {
  kind: string;
  detail: string;
  pool: number;
  order_id: number;
}

/** An audit with its problems; none are listed when there are none. */
export interface Audit extends AuditSummary {
  problems: readonly Problem[];
}

/** The server's parts by name, each "ok" or "failed". */
export interface Readiness {
  ready: boolean;
  parts: Readonly<Record<string, string>>;
}
