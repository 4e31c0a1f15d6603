/** Messages for tests, whole and valid; tests override what they are about. */

import type { ClaimRecord } from "../src/live/claims";
import type { RefusedReply, SaleState, StockState, Tick, Welcome } from "../src/live/messages";

export function welcome(part: Partial<Welcome> = {}): Welcome {
  const fixed = {
    t: "welcome",
    version: 1,
    show: "demo",
    epoch: 100,
    seq: 5,
    now: 1_000_000,
  } as const;
  return { ...fixed, tick_ms: 100, recovered: false, state: {}, chat: [], ...part };
}

export function tick(part: Partial<Tick> = {}): Tick {
  return { t: "tick", n: 1, now: 1_000_100, ...part };
}

export function sale(part: Partial<SaleState> = {}): SaleState {
  return {
    epoch: 1,
    version: 1,
    sale: 7,
    sku: 21,
    product: 11,
    phase: "open",
    price: 9900,
    list_price: 12900,
    currency: "CNY",
    price_version: 1,
    limit_per_buyer: 2,
    opens_at: 1_000,
    closes_at: 100_000,
    pay_within_s: 0,
    ...part,
  };
}

export function stock(part: Partial<StockState> = {}): StockState {
  return { epoch: 1, version: 1, sale: 7, left: 10, held: 0, sold: 0, total: 10, ...part };
}

export function refusal(name: string, part: Partial<RefusedReply> = {}): RefusedReply {
  const texts = { zh: "不行", en: "No" };
  return { t: "refused", ref: 1, code: 1, name, retryable: false, retry_ms: 0, ...texts, ...part };
}

export function claim(part: Partial<ClaimRecord> = {}): ClaimRecord {
  return {
    claim_id: "0199c5e2-7b3c-7c11-9e2a-1b2c3d4e5f60",
    sale: 7,
    quantity: 1,
    price: 9900,
    price_version: 1,
    attempt: 0,
    made_at: 50_000,
    phase: "sending",
    answer: null,
    refusal: null,
    ...part,
  };
}

/** A Storage that lives in memory, as two tabs would share it. */
export class MemoryStorage {
  readonly map = new Map<string, string>();
  get length(): number {
    return this.map.size;
  }
  key(index: number): string | null {
    return [...this.map.keys()][index] ?? null;
  }
  getItem(key: string): string | null {
    return this.map.get(key) ?? null;
  }
  setItem(key: string, value: string): void {
    this.map.set(key, value);
  }
  removeItem(key: string): void {
    this.map.delete(key);
  }
}
