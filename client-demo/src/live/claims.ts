/**
 * Claims of one buyer in one show: ids made and stored before sending, kept across reloads.
 *
 * The same id is sent again (attempt + 1) whenever an earlier sending may have reached the
 * server; after a refusal of the newest sending that decides, no sending is accepted any more and
 * the id is never used again. Everything but ClaimBook is pure.
 */

import { UNDECIDED_REFUSALS } from "./errors";
import { ATTEMPT_MAX } from "./limits";
import type { Claim, ClaimState, ClaimStatus, Proof, RefusedReply } from "./messages";
import type { KeyValueStore } from "./store";
import { uuidv7 } from "./uuid";

/**
 * Where this page stands with a claim:
 * sending (no answer yet), unknown (it may have arrived: the same id goes out again),
 * answered (`answer` tells), refused (`refusal` tells, null: too old to be sent; nothing was taken).
 */
export type ClaimPhase = "sending" | "unknown" | "answered" | "refused";

export interface ClaimRecord {
  claim_id: string;
  sale: number;
  quantity: number;
  /** Minor units, per unit, as the buyer saw it. */
  price: number;
  price_version: number;
  /** Repeats of this id; 0 for the first sending. */
  attempt: number;
  /** Server time in ms when it was made. */
  made_at: number;
  phase: ClaimPhase;
  answer: ClaimState | null;
  refusal: RefusedReply | null;
  /** Server time in ms at which the wait ended: neither undecided nor held any more. */
  settled_at?: number;
}

export interface ClaimWish {
  sale: number;
  quantity: number;
  price: number;
  price_version: number;
}

export function newClaim(wish: ClaimWish, madeAt: number): ClaimRecord {
  const { sale, quantity, price, price_version } = wish; // a wish may be a whole SaleState
  const fresh = { claim_id: uuidv7(), attempt: 0, made_at: madeAt, answer: null, refusal: null };
  return { sale, quantity, price, price_version, ...fresh, phase: "sending" };
}

/** A claim this buyer made elsewhere (another tab or device), as the server told it. */
export function adopted(answer: ClaimState, at: number): ClaimRecord {
  const { claim_id, sale = 0, quantity = 0, price = 0, price_version = 0 } = answer;
  const terms = { claim_id, sale, quantity, price, price_version };
  return { ...terms, attempt: 0, made_at: at, phase: "answered", answer, refusal: null };
}

export function claimCommand(record: ClaimRecord, ref: number): Claim {
  const { sale, claim_id, quantity, price_version, attempt } = record;
  const claim: Claim = { t: "claim", ref, sale, claim_id, quantity, price_version, attempt };
  const proof = proofOf(record);
  return proof ? { ...claim, proof } : claim;
}

/** That the claim was held before, should the server have lost it. */
function proofOf({ answer }: ClaimRecord): Proof | null {
  if (answer?.status !== "held" || !answer.receipt) return null;
  const { receipt, epoch = 0, seq = 0, price = 0 } = answer;
  return { receipt, epoch, seq, price };
}

/** How far along a status is (every step goes up); an answer never takes a claim back. */
const RANK: Record<ClaimStatus, number> = {
  not_seen: 0,
  held: 1,
  confirmed: 2,
  released_by_incident: 2,
  expired: 3,
  cancelled: 3,
  paid: 4,
  fulfilled: 5,
  refunded: 5,
};

/**
 * The server told `answer`, as a reply or by itself. `not_seen` is never final, and says nothing
 * about a claim that has become an order.
 */
export function answered(record: ClaimRecord, answer: ClaimState): ClaimRecord {
  const before = rankOf(record);
  if (answer.status === "not_seen" && before <= RANK.held) return { ...record, phase: "unknown" };
  if (RANK[answer.status] < before) return record;
  return { ...record, phase: "answered", answer, refusal: null };
}

/**
 * The newest sending was refused. That is final, also for earlier ones that are still on their
 * way: the claim script refuses them when they come. Only a refusal from before the script says
 * nothing about them.
 */
export function refused(record: ClaimRecord, refusal: RefusedReply): ClaimRecord {
  if (record.phase === "answered") return record;
  const mayHaveArrived = record.attempt > 0 || refusal.name === "outcome_unknown";
  const undecided = mayHaveArrived && UNDECIDED_REFUSALS.has(refusal.name);
  return { ...record, phase: undecided ? "unknown" : "refused", refusal };
}

/** The connection ended before the answer. */
export function cutOff(record: ClaimRecord): ClaimRecord {
  return record.phase === "sending" ? { ...record, phase: "unknown" } : record;
}

/** The same claim once more; `mayRepeat` told that it may go out. */
export function again(record: ClaimRecord): ClaimRecord {
  return { ...record, attempt: record.attempt + 1, phase: "sending" };
}

/** A buyer who pressed so long ago is no longer waiting. */
const REPEATED_MS = 10 * 60_000;

/** Whether nothing was ever told about it, for so long that it must not take effect unasked. */
export function isAged(record: ClaimRecord, now: number): boolean {
  return isUndecided(record) && !record.answer && now - record.made_at > REPEATED_MS;
}

/** How far along the server said it is. */
function rankOf({ answer }: ClaimRecord): number {
  return answer ? RANK[answer.status] : 0;
}

/**
 * Of two tabs' copies of a claim the one that knows more: the server's furthest word, then the
 * newest sending; then a refusal knows more than its sending, and an answer that came in spite of
 * it (the hold was found again) more than the refusal. `first` when neither does.
 */
export function later(first: ClaimRecord, second: ClaimRecord): ClaimRecord {
  const ahead =
    rankOf(second) - rankOf(first) ||
    second.attempt - first.attempt ||
    afterRefusal(second, first) - afterRefusal(first, second);
  return ahead > 0 ? second : first;
}

/** 1 when `record` is a refusal and `other` only its sending, or an answer and `other` a refusal. */
function afterRefusal(record: ClaimRecord, other: ClaimRecord): number {
  if (record.phase === "refused") return Number(other.phase !== "answered");
  return Number(record.phase === "answered" && other.phase === "refused");
}

/** Whether the same id may go out again; otherwise the server can still be asked about it. */
export function mayRepeat(record: ClaimRecord, now: number): boolean {
  return isUndecided(record) && !isAged(record, now) && record.attempt < ATTEMPT_MAX;
}

export function isUndecided(record: ClaimRecord): boolean {
  return record.phase === "sending" || record.phase === "unknown";
}

export function isHeld(record: ClaimRecord): boolean {
  return record.phase === "answered" && record.answer?.status === "held";
}

const KEPT_MS = 24 * 3_600_000;
const KEPT_MAX = 100;

/**
 * The claims of one buyer in one show, of all tabs: one storage key per claim, and of a claim that
 * two tabs have written the copy that knows more stays. When storage is full it holds them in
 * memory: buying still works, only a reload forgets.
 */
export class ClaimBook {
  readonly #records = new Map<string, ClaimRecord>();
  readonly #prefix: string;
  readonly #store: KeyValueStore;

  constructor(store: KeyValueStore, show: string, user: string) {
    this.#store = store;
    this.#prefix = `livesale.claim.${show}.${user}.`;
    for (const record of this.#stored()) this.#records.set(record.claim_id, record);
  }

  /** Oldest first (UUIDv7 sorts by time). */
  list(): ClaimRecord[] {
    return [...this.#records.values()].sort((a, b) => (a.claim_id < b.claim_id ? -1 : 1));
  }

  get(claimId: string): ClaimRecord | undefined {
    return this.#records.get(claimId);
  }

  /** The claim as any tab knows it by now. */
  reread(claimId: string): ClaimRecord | undefined {
    const theirs = parseRecord(this.#store.getItem(this.#prefix + claimId));
    const mine = this.#records.get(claimId);
    const record = theirs && mine ? later(theirs, mine) : (theirs ?? mine);
    if (record) this.#records.set(claimId, record);
    return record;
  }

  /** Take in what other tabs stored while this one was not told of it: halted, or not watching. */
  refresh(): void {
    for (const { claim_id } of this.#stored()) this.reread(claim_id);
  }

  put(given: ClaimRecord): void {
    const key = this.#prefix + given.claim_id;
    const other = parseRecord(this.#store.getItem(key));
    const record = other ? later(given, other) : given;
    this.#records.set(record.claim_id, record);
    try {
      this.#store.setItem(key, JSON.stringify(record));
    } catch {
      // Kept in memory only, as the class promises.
    }
  }

  /** Forget what is decided and a day old at `now`, and all decided ones above the cap. */
  prune(now: number): void {
    const decided = this.list().filter((record) => !isUndecided(record) && !isHeld(record));
    const surplus = decided.length - KEPT_MAX;
    decided.forEach((record, index) => {
      if (index < surplus || now - record.made_at > KEPT_MS) this.#drop(record.claim_id);
    });
  }

  #drop(claimId: string): void {
    this.#records.delete(claimId);
    this.#store.removeItem(this.#prefix + claimId);
  }

  #stored(): ClaimRecord[] {
    const keys = Array.from({ length: this.#store.length }, (_, i) => this.#store.key(i) ?? "");
    return keys
      .filter((key) => key.startsWith(this.#prefix))
      .map((key) => parseRecord(this.#store.getItem(key)))
      .filter((record): record is ClaimRecord => record !== null);
  }
}

/** A stored record, or null for one of another version or a damaged one. */
function parseRecord(text: string | null): ClaimRecord | null {
  try {
    const value = JSON.parse(text ?? "") as Partial<ClaimRecord>;
    const whole = typeof value.claim_id === "string" && typeof value.attempt === "number";
    return whole && typeof value.phase === "string" ? (value as ClaimRecord) : null;
  } catch {
    return null;
  }
}
