/**
 * A viewer's (or host's) live connection to one show: what an embedding page works with.
 *
 *     const live = new LiveSession({ url: "wss://shop.example/ws/demo", show: "demo" });
 *     live.subscribe((state) => render(state));
 *     live.start();
 *     live.signIn(token);
 *     live.buy({ sale: 7, quantity: 1, price: 9900, price_version: 1 });
 *
 * It joins the pure parts: socket (bytes and reconnects), reducer (state), claim book (purchases
 * that survive a reload) and clock (server time).
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
  isHeld,
  isUndecided,
  type KeyValueStore,
  newClaim,
  refused,
} from "./claims";
import { ServerClock } from "./clock";
import { type Codec, msgpackCodec } from "./codec";
import { SIGN_IN_OVER } from "./errors";
import { LIKE_TAPS_MAX, REF_MAX } from "./limits";
import type {
  Accepted,
  ChatLine,
  ClaimState,
  Command,
  RefusedReply,
  ServerMessage,
} from "./messages";
import { EMPTY, type Input, type Link, type LiveState, reduce } from "./reducer";
import { LiveSocket, type SocketOptions } from "./socket";
import { isHidden, watchSurroundings } from "./surroundings";

export interface SessionOptions {
  /** ws:// or wss:// address of the show, without query. */
  url: string;
  show: string;
  codec?: Codec;
  /** Where claims survive a reload; window.localStorage for pages. */
  store?: KeyValueStore;
  clock?: ServerClock;
  open?: SocketOptions["open"];
}

const LIKE_FLUSH_MS = 250;
/** `time` goes out this often; it keeps the clock right and proves that the server answers. */
const HEARTBEAT_MS = 10_000;
const HEARTBEAT_HIDDEN_MS = 30_000;
const FIRST_SYNCS_MS = [0, 150, 300, 600, 1_200];
/** No frame for this long: ask with a `time` of its own. */
const QUIET_MS = 4_000;
/** No frame for this long after a `time`: say so. */
const SILENT_MS = 3_000;
/** And for this long: make a new connection. */
const DEAD_MS = 6_000;
const LISTEN_MS = 500;
/** A hold without news is asked for this often. */
const HOLD_ASK_MS = 3_000;
const CLAIM_RETRY_MS = 300;
const CLAIM_RETRY_MAX_MS = 5_000;

type Timer = ReturnType<typeof setTimeout>;
type LineListener = (lines: readonly ChatLine[]) => void;

export class LiveSession {
  readonly clock: ServerClock;
  readonly #socket: LiveSocket;
  readonly #store: KeyValueStore;
  readonly #show: string;
  readonly #listeners = new Set<(state: LiveState) => void>();
  readonly #lineListeners = new Set<LineListener>();
  readonly #claimRefs = new Map<number, ClaimRecord>(); // as they were sent
  readonly #retries = new Map<string, Timer>();
  #state: LiveState = EMPTY;
  #book: ClaimBook | null = null;
  #token = "";
  #helloRef = -1;
  #ref = 0;
  #taps = 0;
  #likeTimer: Timer | undefined;
  #timers: Timer[] = [];
  #intervals: Timer[] = [];
  #unwatch = () => {};
  /** Server ms of the last frame; 0: none yet. */
  #heardAt = 0;
  /** Local ms of the last frame, and of the oldest `time` that no frame came after. */
  #heardLocal = 0;
  #askedLocal: number | null = null;

  constructor(options: SessionOptions) {
    this.clock = options.clock ?? new ServerClock();
    this.#show = options.show;
    this.#store = options.store ?? globalThis.localStorage;
    this.#socket = new LiveSocket({
      url: options.url,
      codec: options.codec ?? msgpackCodec,
      resume: () => this.#resumePoint(),
      handlers: {
        onMessage: (message) => this.#receive(message),
        onConnecting: (again) => this.#connecting(again),
        onOffline: (delay) => this.#lost(this.#offline(delay)),
        onOver: (code, name) => this.#lost({ state: "over", code, name }),
      },
      ...(options.open && { open: options.open }),
    });
  }

  get state(): LiveState {
    return this.#state;
  }

  /** Called with every new state; returns how to stop. */
  subscribe(listener: (state: LiveState) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Called with danmaku lines as they come (own accepted lines included). */
  onLines(listener: LineListener): () => void {
    this.#lineListeners.add(listener);
    return () => this.#lineListeners.delete(listener);
  }

  /** Connect, and follow the page: its network, and whether it is shown. */
  start(): void {
    this.#unwatch = watchSurroundings({
      onNetworkLost: () => this.#networkLost(),
      onNetworkBack: () => this.wake(),
      onHidden: () => this.#repeat(),
      onShown: () => this.wake(),
    });
    this.#repeat();
    this.#socket.start();
  }

  stop(): void {
    this.#unwatch();
    this.#socket.stop();
    for (const timer of [...this.#timers, ...this.#retries.values()]) clearTimeout(timer);
    for (const timer of this.#intervals) clearInterval(timer);
    clearTimeout(this.#likeTimer);
  }

  /** The page is shown again or the network is back: do not wait for any timer. */
  wake(): void {
    this.#repeat();
    this.#socket.wake();
    this.#askedLocal = null; // Timers may have stood still: the server gets its time anew.
    this.#heartbeat();
    this.#askForHolds();
  }

  // --- what people do --------------------------------------------------------------------------

  /** Sign in, or refresh the token in-band. The token is also used after reconnects. */
  signIn(token: string): void {
    this.#token = token;
    this.#hello();
  }

  /** One chat line; `state.chat` tells what becomes of it. */
  chat(text: string): void {
    const ref = this.#nextRef();
    this.#apply({ t: "chat_sent", ref, text });
    if (!this.#send({ t: "chat", ref, text })) this.#apply({ t: "cut_off" });
  }

  /** Taps are collected and sent together. */
  like(): void {
    this.#taps += 1;
    this.#likeTimer ??= setTimeout(() => this.#flushLikes(), LIKE_FLUSH_MS);
  }

  /** Ask for units. The claim is stored before it is sent; null before the sign-in. */
  buy(wish: ClaimWish): ClaimRecord | null {
    if (!this.#book) return null;
    const record = newClaim(wish, this.clock.now());
    this.#put(record);
    this.#sendClaim(record);
    return record;
  }

  // --- frames ----------------------------------------------------------------------------------

  #receive(message: ServerMessage): void {
    this.#heard();
    const lines = this.#freshLines(message);
    this.#apply(message);
    if (lines.length > 0) this.#tellLines(lines);
    switch (message.t) {
      case "welcome":
        this.clock.seed(message.now);
        this.#welcomed();
        break;
      case "accepted":
        this.#accepted(message);
        break;
      case "refused":
        this.#refused(message);
        break;
      case "order":
        this.#orderMoved(message.order);
        break;
    }
    if (this.#state.hole) this.#socket.renew();
  }

  #welcomed(): void {
    if (this.#token) this.#hello();
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers = FIRST_SYNCS_MS.map((delay) => setTimeout(() => this.#heartbeat(), delay));
  }

  #accepted(reply: Accepted): void {
    if (reply.time) this.clock.sample(reply.time.sent_at, reply.time.now);
    if (reply.hello) this.#signedIn(reply.hello.user);
    const moved = reply.claim ?? reply.order;
    if (moved) this.#orderMoved(moved);
    this.#claimRefs.delete(reply.ref);
  }

  #refused(refusal: RefusedReply): void {
    if (refusal.ref === null) return;
    if (refusal.ref === this.#helloRef) this.#helloRefused(refusal);
    const sent = this.#claimRefs.get(refusal.ref);
    this.#claimRefs.delete(refusal.ref);
    const record = sent && this.#book?.get(sent.claim_id);
    if (!record || record.attempt !== sent.attempt) return; // the newest sending decides
    const next = refused(record, refusal);
    this.#put(next);
    if (isUndecided(next)) this.#retryLater(next, refusal.retry_ms);
  }

  // --- who is connected ------------------------------------------------------------------------

  #hello(): void {
    this.#helloRef = this.#nextRef();
    this.#send({ t: "hello", ref: this.#helloRef, token: this.#token });
  }

  #signedIn(user: string): void {
    this.#book ??= new ClaimBook(this.#store, this.#show, user);
    this.#book.prune(this.clock.now());
    this.#showClaims();
    for (const record of this.#book.list()) {
      if (isUndecided(record)) this.#resend(record.claim_id);
    }
    this.#askForHolds();
  }

  #helloRefused(refusal: RefusedReply): void {
    if (SIGN_IN_OVER.has(refusal.name)) this.#token = "";
    this.#apply({ t: "hello_refused", refusal });
  }

  // --- claims ----------------------------------------------------------------------------------

  #orderMoved(answer: ClaimState): void {
    const record = this.#book?.get(answer.claim_id);
    if (!record && answer.status === "not_seen") return;
    const next = record ? answered(record, answer) : adopted(answer, this.clock.now());
    this.#put(next);
    if (isUndecided(next)) this.#retryLater(next, CLAIM_RETRY_MS);
  }

  #sendClaim(record: ClaimRecord): void {
    const ref = this.#nextRef();
    this.#claimRefs.set(ref, record);
    if (!this.#send(claimCommand(record, ref))) this.#put(cutOff(record));
  }

  /** The same id once more, unless it was answered meanwhile. */
  #resend(claimId: string): void {
    this.#retries.delete(claimId);
    const record = this.#book?.get(claimId);
    if (!record || !isUndecided(record) || !this.#socket.open) return;
    const next = again(record);
    this.#put(next);
    this.#sendClaim(next);
  }

  #retryLater(record: ClaimRecord, hintMs: number): void {
    clearTimeout(this.#retries.get(record.claim_id));
    const step = Math.max(hintMs, CLAIM_RETRY_MS) * 2 ** Math.min(record.attempt, 5);
    const delay = Math.min(step, CLAIM_RETRY_MAX_MS) * (0.75 + Math.random() / 2);
    const timer = setTimeout(() => this.#resend(record.claim_id), delay);
    this.#retries.set(record.claim_id, timer);
  }

  #askForHolds(): void {
    if (!this.#state.me) return;
    for (const record of this.#book?.list() ?? []) {
      if (!isHeld(record)) continue;
      this.#send({ t: "order_status", ref: this.#nextRef(), claim_id: record.claim_id });
    }
  }

  #put(record: ClaimRecord): void {
    this.#book?.put(record);
    this.#showClaims();
  }

  #showClaims(): void {
    this.#apply({ t: "claims", claims: this.#book?.list() ?? [] });
  }

  // --- likes, time, silence --------------------------------------------------------------------

  #flushLikes(): void {
    this.#likeTimer = undefined;
    const taps = Math.min(this.#taps, LIKE_TAPS_MAX);
    this.#taps = 0;
    if (taps > 0) this.#send({ t: "like", taps });
  }

  /** The repeated duties; a hidden page only keeps its connection. */
  #repeat(): void {
    for (const timer of this.#intervals) clearInterval(timer);
    if (isHidden()) {
      this.#intervals = [setInterval(() => this.#heartbeat(), HEARTBEAT_HIDDEN_MS)];
      return;
    }
    this.#intervals = [
      setInterval(() => this.#heartbeat(), HEARTBEAT_MS),
      setInterval(() => this.#askForHolds(), HOLD_ASK_MS),
      setInterval(() => this.#listen(), LISTEN_MS),
    ];
  }

  #heartbeat(): void {
    const at = this.clock.local();
    const sent = this.#send({ t: "time", ref: this.#nextRef(), sent_at: at });
    if (sent) this.#askedLocal ??= at;
  }

  /** Every frame proves that the server is there. */
  #heard(): void {
    this.#heardLocal = this.clock.local();
    this.#heardAt = this.clock.now();
    this.#askedLocal = null;
    const { link, epoch } = this.#state;
    const doubted = link.state === "catching_up" || link.state === "offline";
    if (doubted && epoch && this.#socket.open) this.#showLink({ state: "live" });
  }

  #listen(): void {
    const now = this.clock.local();
    const asked = this.#askedLocal;
    if (asked === null) {
      if (now - this.#heardLocal >= QUIET_MS) this.#heartbeat();
    } else if (now - asked >= DEAD_MS) {
      this.#askedLocal = null;
      this.#socket.renew();
    } else if (now - asked >= SILENT_MS && this.#state.link.state === "live") {
      this.#showLink({ state: "catching_up", heardAt: this.#heardAt });
    }
  }

  // --- connection ------------------------------------------------------------------------------

  #resumePoint(): { epoch: number; seq: number } | null {
    const { epoch, seq } = this.#state;
    return epoch > 0 ? { epoch, seq } : null;
  }

  #connecting(again: boolean): void {
    const back: Link = { state: "catching_up", heardAt: this.#heardAt };
    this.#showLink(again ? back : { state: "connecting" });
  }

  #offline(delayMs: number): Link {
    return { state: "offline", retryAt: Date.now() + delayMs, heardAt: this.#heardAt };
  }

  /**
   * The browser says that there is no network. The socket is kept, for it may be wrong or short:
   * any frame makes the page live again, and without one the connection is given up as silent.
   */
  #networkLost(): void {
    if (this.#state.link.state !== "live" && this.#state.link.state !== "catching_up") return;
    this.#showLink(this.#offline(DEAD_MS));
    this.#heartbeat();
  }

  #showLink(link: Link): void {
    this.#apply({ t: "link", link });
  }

  #lost(link: Link): void {
    this.#askedLocal = null;
    this.#claimRefs.clear();
    for (const record of this.#book?.list() ?? []) this.#book?.put(cutOff(record));
    this.#apply({ t: "cut_off" });
    this.#showClaims();
    this.#showLink(link);
  }

  #send(command: Command): boolean {
    return this.#socket.send(command);
  }

  #nextRef(): number {
    this.#ref = this.#ref >= REF_MAX ? 1 : this.#ref + 1;
    return this.#ref;
  }

  #apply(input: Input): void {
    const next = reduce(this.#state, input);
    if (next === this.#state) return;
    this.#state = next;
    for (const listener of this.#listeners) listener(next);
  }

  /** Danmaku lines `message` brings that were not there before: an own line comes twice. */
  #freshLines(message: ServerMessage): ChatLine[] {
    const known = (id: string) => this.#state.chat.some((entry) => entry.key === id);
    if (message.t === "tick") return (message.chat ?? []).filter((line) => !known(line.id));
    if (message.t !== "accepted" || !message.chat || known(message.chat.id)) return [];
    const own = this.#state.chat.find((entry) => entry.key === `own:${message.ref}`);
    return own ? [{ ...own.line, ...message.chat }] : [];
  }

  #tellLines(lines: readonly ChatLine[]): void {
    for (const listener of this.#lineListeners) listener(lines);
  }
}
