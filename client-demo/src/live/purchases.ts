/**
 * The claims of one buyer over a connection that comes and goes: what is sent, sent again and
 * asked for. `claims.ts` has the rules; this keeps the book, the refs on their way and the timers.
 * Of several tabs one sends an undecided claim (`turns.ts`); the others show it and ask about it.
 */

import {
  adopted,
  again,
  answered,
  ClaimBook,
  type ClaimRecord,
  type ClaimWish,
  claimCommand,
  cutOff,
  isAged,
  isHeld,
  isUndecided,
  mayRepeat,
  newClaim,
  refused,
} from "./claims";
import type { ClaimState, Command, RefusedReply } from "./messages";
import { hinted } from "./socket";
import type { KeyValueStore } from "./store";
import { Turns } from "./turns";

/** What the purchases need of the session. */
export interface Wire {
  nextRef(): number;
  /** False when there is no connection. */
  send(command: Command): boolean;
  /** Server ms. */
  now(): number;
  /** The claims are now these, oldest first. */
  show(claims: readonly ClaimRecord[]): void;
}

const RETRY_MS = 300;
/** Repeats grow rarer up to this; a server that asks for a longer pause gets it. */
const RETRY_MAX_MS = 5_000;
const CLAIM_ID_CHARS = 36;
/** The news of a claim overtakes the lock that its tab asked for before it. */
const HEAD_START_MS = 1_000;

export class Purchases {
  readonly user: string;
  readonly #book: ClaimBook;
  readonly #wire: Wire;
  readonly #sent = new Map<number, ClaimRecord>(); // by ref, as they went out
  readonly #retries = new Map<string, ReturnType<typeof setTimeout>>();
  readonly #turns = new Turns();
  #signedIn = false;

  constructor(store: KeyValueStore, show: string, user: string, wire: Wire) {
    this.user = user;
    this.#wire = wire;
    this.#book = new ClaimBook(store, show, user);
  }

  /** The buyer is signed in (again): undecided claims go out, held ones are asked for. */
  resume(): void {
    this.#signedIn = true;
    this.#book.refresh();
    this.#book.prune(this.#wire.now());
    this.#show();
    for (const record of this.#book.list()) this.#standIn(record);
    this.ask();
  }

  /** The sign-in is over: nothing goes out until resume(), other tabs may send. */
  pause(): void {
    this.#signedIn = false;
    this.#turns.leaveAll();
    for (const timer of this.#retries.values()) clearTimeout(timer);
    this.#retries.clear();
  }

  /** Nobody sees the page, and a phone may halt it: a tab that waits takes its turns. */
  stepBack(): void {
    if (!this.#turns.pass) return;
    this.#turns.leaveAll();
    for (const record of this.#book.list()) {
      this.#standIn(record, () => this.#retryLater(record, RETRY_MS));
    }
  }

  /** The connection ended before the answers. */
  cut(): void {
    this.pause();
    for (const { claim_id } of this.#sent.values()) {
      const record = this.#book.get(claim_id);
      if (record) this.#book.put(cutOff(record));
    }
    this.#sent.clear();
    this.#show();
  }

  /** The undecided claim on that sale, else a new one, stored before it is sent. */
  buy(wish: ClaimWish): ClaimRecord {
    this.#book.refresh();
    const open = this.#book.list().find((one) => one.sale === wish.sale && isUndecided(one));
    if (open) return open;
    const record = newClaim(wish, this.#wire.now());
    if (this.#signedIn) this.#turns.begin(record.claim_id);
    this.#put(record);
    this.#send(record);
    return record;
  }

  /** The server told how a claim stands, in the reply to `ref` or by itself. */
  told(answer: ClaimState, ref = 0): void {
    this.#sent.delete(ref);
    const record = this.#book.get(answer.claim_id);
    if (!record && answer.status === "not_seen") return;
    const next = record ? answered(record, answer) : adopted(answer, this.#wire.now());
    const aged = isAged(next, this.#wire.now());
    this.#moved(aged ? { ...next, phase: "refused" } : next, RETRY_MS);
  }

  refused(refusal: RefusedReply): void {
    const sent = this.#sent.get(refusal.ref ?? 0);
    this.#sent.delete(refusal.ref ?? 0);
    const record = sent && this.#book.get(sent.claim_id);
    if (!record || record.attempt !== sent.attempt) return; // the newest sending decides
    this.#moved(refused(record, refusal), refusal.retry_ms);
  }

  /** Another tab stored something under `key`, which ends in the id if it is a claim. */
  stored(key: string): void {
    const record = this.#book.reread(key.slice(-CLAIM_ID_CHARS));
    if (!record) return;
    if (!isUndecided(record)) this.#turns.leave(record.claim_id);
    else if (this.#turns.pass) setTimeout(() => this.#standBehind(record), HEAD_START_MS);
    this.#show();
  }

  /** Ask how the claims stand that are held, or undecided and not to be sent again from here. */
  ask(): void {
    if (!this.#signedIn) return;
    const { nextRef, send } = this.#wire;
    for (const record of this.#book.list()) {
      if (!isHeld(record) && (!isUndecided(record) || this.#maySend(record))) continue;
      send({ t: "order_status", ref: nextRef(), claim_id: record.claim_id });
    }
  }

  /** For the case that the tab which made the claim goes: after it, it is sent from here. */
  #standBehind({ claim_id }: ClaimRecord): void {
    const record = this.#book.get(claim_id);
    if (record && !this.#turns.has(claim_id)) this.#standIn(record);
  }

  #maySend(record: ClaimRecord): boolean {
    return this.#turns.has(record.claim_id) && mayRepeat(record, this.#wire.now());
  }

  /** An undecided claim goes out when it is this tab's turn; a decided one needs nobody. */
  #standIn(record: ClaimRecord, onTurn = () => this.#resend(record.claim_id)): void {
    if (!isUndecided(record)) this.#turns.leave(record.claim_id);
    else if (this.#signedIn) this.#turns.take(record.claim_id, onTurn);
  }

  #send(record: ClaimRecord): void {
    const ref = this.#wire.nextRef();
    this.#sent.set(ref, record);
    const out = this.#signedIn && this.#wire.send(claimCommand(record, ref));
    if (!out) this.#put(cutOff(record));
  }

  /** The same id once more, unless it was answered or grew too old meanwhile. */
  #resend(claimId: string): void {
    this.#retries.delete(claimId);
    const record = this.#book.reread(claimId);
    if (!record || !this.#maySend(record)) return;
    const next = again(record);
    this.#put(next);
    this.#send(next);
  }

  #moved(record: ClaimRecord, hintMs: number): void {
    this.#put(record);
    this.#standIn(record, () => this.#retryLater(record, hintMs));
  }

  #retryLater({ claim_id, attempt }: ClaimRecord, hintMs: number): void {
    clearTimeout(this.#retries.get(claim_id));
    const step = Math.max(hintMs, RETRY_MS) * 2 ** Math.min(attempt, 5);
    const delay = Math.max(hintMs, Math.min(step, RETRY_MAX_MS));
    const timer = setTimeout(() => this.#resend(claim_id), hinted(delay, Math.random));
    this.#retries.set(claim_id, timer);
  }

  #put(record: ClaimRecord): void {
    const open = isUndecided(record) || isHeld(record);
    this.#book.put(open ? record : { settled_at: this.#wire.now(), ...record });
    this.#show();
  }

  #show(): void {
    this.#wire.show(this.#book.list());
  }
}
