/** What the host API answers (server/acts/views.py). Money in minor units, times in ms, 0: none. */

import type { Order } from "../ui/api";

export interface Show {
  show: string;
  title: string;
  cover_url: string;
  playback_url: string;
  starts_at: number;
  status: "scheduled" | "live" | "paused" | "ended";
  host: string;
  pinned_product: number;
  slow_mode_s: number;
  created_at: number;
  started_at: number;
  ended_at: number;
  pending: boolean;
}

export interface Sku {
  sku: number;
  title: string;
  price: number;
  currency: string;
  inventory: number;
  allotted: number;
}

export interface Product {
  product: number;
  title: string;
  image_url: string;
  position: number;
  listed: boolean;
  /** What the host means to say about it, in order. */
  cues: string[];
  skus: Sku[];
}

export interface Sale {
  sale: number;
  status: "draft" | "scheduled" | "open" | "closing" | "closed";
  sku: number;
  sku_title: string;
  product: number;
  product_title: string;
  price: number;
  list_price: number;
  currency: string;
  price_version: number;
  limit_per_buyer: number;
  countdown_s: number;
  duration_s: number;
  pay_within_s: number;
  opens_at: number;
  closes_at: number;
  initial: number;
  restocked: number;
  lowered: number;
  reserved: number;
  sold: number;
  dead: number;
  lowering: number;
  pending: boolean;
}

export interface ChatPolicy {
  slow_mode_s: number;
  words: string[];
  /** User to the time the mute ends. */
  muted: Record<string, number>;
  banned: string[];
  pending: boolean;
}

export interface Act {
  act: string;
  at: number;
  actor: string;
  role: string;
  action: string;
  detail: Record<string, unknown>;
  outcome: string;
}

export interface SaleStats {
  sale: number;
  status: string;
  currency: string;
  total: number;
  left: number;
  reserved: number;
  sold: number;
  dead: number;
  orders: number;
  units: number;
  amount: number;
}

export type OrderVerb = "fulfil" | "refund" | "cancel";

/** An order with every step after its confirmation and its payments, oldest first. */
export interface OrderDetail extends Order {
  moves: {
    status_from: Order["status"] | "dead";
    status_to: Order["status"];
    reason: "deadline" | "buyer" | "host" | "payment" | "retake" | "redrive";
    actor: string;
    at: number;
  }[];
  payments: {
    payment: string;
    provider: string;
    status: "created" | "captured" | "retake_pending" | "refund_requested" | "refunded" | "failed";
    amount: number;
    currency: string;
    reason: string;
    created_at: number;
  }[];
}

/** Units of a sale at one instant; `difference` 0: every unit is where it should be. */
export interface PoolBalance {
  pool: number;
  initial: number;
  restocked: number;
  lowered: number;
  available: number;
  backlog: number;
  reserved: number;
  sold: number;
  dead: number;
  pending_give: number;
  difference: number;
}

export interface AuditSummary {
  at: number;
  ok: boolean;
  found: number;
  pools: PoolBalance[];
}

/** A sale tried out on synthetic people. `verdict`: "" without a summary. */
export interface Rehearsal {
  rehearsal: number;
  sale: number;
  status: "preparing" | "running" | "done" | "failed" | "stopped";
  reason: string;
  buyers: number;
  progress: { phase: string; share: number; held: number; confirmed: number; left: number };
  verdict: string;
  ended_at: number;
}

export interface DeadLetter {
  dead_letter: number;
  sale: number;
  units: number;
  error: string;
  status: "parked" | "redriven" | "given_back";
  at: number;
  content: Record<string, unknown>;
}

export interface Webhook {
  webhook: number;
  url: string;
  removed_at: number;
  pending: number;
  failed: number;
}

export interface CreatedWebhook extends Webhook {
  secret: string;
}

export interface Delivery {
  delivery: number;
  webhook_id: string;
  topic: string;
  at: number;
  status: "pending" | "delivered" | "failed";
  attempts: number;
  http_status: number;
  last_error: string;
}
