/**
 * A viewer's (or host's) live connection to one show: what an embedding page works with.
 *
 *     const live = new LiveSession({ url: "wss://shop.example/ws/demo", show: "demo" });
 *     live.subscribe((state) => render(state));
 *     live.start();
 *     live.signIn(token);
 *     live.buy({ sale: 7, quantity: 1, price: 9900, price_version: 1 });
 *
 * It joins the parts: socket (bytes and reconnects), reducer (state), purchases (claims that
 * survive a reload) and clock (server time).
 */

import type { ClaimRecord, ClaimWish } from "./claims";
import { ServerClock } from "./clock";
import { type Codec, msgpackCodec } from "./codec";
import { SIGN_IN_OVER } from "./errors";
import { LIKE_TAPS_MAX, REF_MAX } from "./limits";
import type { Accepted, ChatLine, Command, RefusedReply, ServerMessage } from "./messages";
import { Purchases } from "./purchases";
import { EMPTY, type Input, type Link, type LiveState, reduce } from "./reducer";
import { hinted, LiveSocket, type SocketOptions } from "./socket";
import { type KeyValueStore, pageStore } from "./store";
import { isHidden, watchSurroundings } from "./surroundings";

export interface SessionOptions {
  /** ws:// or wss:// address of the show, without query. */
  url: string;
  show: string;
  codec?: Codec;
  /** Where claims survive a reload; localStorage by default, memory where it is blocked. */
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
/** A repeated duty that comes later than this by the wall clock: the machine slept. */
const SLEPT_MS = LISTEN_MS + 2_000;
/** A hold without news is asked for this often. */
const HOLD_ASK_MS = 3_000;
/** A sign-in refused for a passing reason is repeated after this, or later if the server says. */
const HELLO_RETRY_MS = 1_000;

type Timer = ReturnType<typeof setTimeout>;
type LineListener = (lines: readonly ChatLine[]) => void;

export class LiveSession {
  readonly clock: ServerClock;
  readonly #socket: LiveSocket;
  readonly #store: KeyValueStore;
  readonly #show: string;
  readonly #listeners = new Set<(state: LiveState) => void>();
  readonly #lineListeners = new Set<LineListener>();
  #running = false;
  #state: LiveState = EMPTY;
  #purchases: Purchases | null = null;
  /** The newest token given, and the newest that was accepted. */
  #token = "";
  #goodToken = "";
  /** Ref of the `hello` that waits for its answer; 0: none. */
  #helloRef = 0;
  #helloTimer: Timer | undefined;
  #ref = 0;
  #taps = 0;
  #likeTimer: Timer | undefined;
  #timers: Timer[] = [];
  #intervals: Timer[] = [];
  #unwatch = () => {};
  /** Wall ms of the last frame (0: none yet), which count also while the machine sleeps. */
  #heardWall = 0;
  #listenedWall = 0;
  /** Local ms of the last frame, and of the oldest `time` that no frame came after. */
  #heardLocal = 0;
  #askedLocal: number | null = null;

  constructor(options: SessionOptions) {
    this.clock = options.clock ?? new ServerClock();
    this.#show = options.show;
    this.#store = options.store ?? pageStore();
    this.#socket = new LiveSocket({
      url: options.url,
      codec: options.codec ?? msgpackCodec,
      resume: () => this.#resumePoint(),
      handlers: {
        onMessage: (message) => this.#receive(message),
        onConnecting: (again) => this.#connecting(again),
        onOffline: (delay) => this.#lost(this.#offline(Date.now() + delay)),
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
    if (this.#running) return;
    this.#running = true;
    this.#unwatch = watchSurroundings({
      onNetworkLost: () => this.#networkLost(),
      onNetworkBack: () => this.wake(),
      onHidden: () => {
        this.#repeat();
        this.#purchases?.stepBack();
      },
      onShown: () => this.wake(),
      onStored: (key) => this.#purchases?.stored(key),
    });
    this.#repeat();
    this.#socket.start();
  }

  stop(): void {
    this.#running = false;
    this.#unwatch();
    this.#socket.stop();
    this.#purchases?.pause();
    for (const timer of [...this.#timers, this.#helloTimer, this.#likeTimer]) clearTimeout(timer);
    for (const timer of this.#intervals) clearInterval(timer);
  }

  /** The page is shown again or the network is back: do not wait for any timer. */
  wake(): void {
    if (!this.#running) return;
    this.#repeat();
    if (Date.now() - this.#heardWall >= QUIET_MS) this.#doubt();
    this.#socket.wake();
    this.#askedLocal = null; // Timers may have stood still: the server gets its time anew.
    this.#heartbeat();
    this.#purchases?.ask();
  }

  // --- what people do --------------------------------------------------------------------------

  /**
   * Sign in, or refresh the token in-band. The token is also used after reconnects. Once its time
   * is over `state.me` is null and `state.signInRefusal` tells: call this again with a new one.
   */
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

  /**
   * Ask for units. The claim is stored before it is sent. While an earlier one on that sale is
   * undecided, that one is returned and nothing is sent. Null while nobody is signed in.
   */
  buy(wish: ClaimWish): ClaimRecord | null {
    return this.#state.me && this.#purchases ? this.#purchases.buy(wish) : null;
  }

  // --- frames ----------------------------------------------------------------------------------

  #receive(message: ServerMessage): void {
    const lines = this.#freshLines(message);
    this.#apply(message);
    this.#heard();
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
        this.#purchases?.told(message.order);
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
    if (moved) this.#purchases?.told(moved, reply.ref);
  }

  #refused(refusal: RefusedReply): void {
    if (refusal.ref === null) return;
    this.#purchases?.refused(refusal);
    // Any command may tell that the time is over, unless a new token is on its way.
    const expired = refusal.name === "token_expired" && this.#helloRef === 0;
    if (expired || refusal.ref === this.#helloRef) this.#helloRefused(refusal);
  }

  // --- who is connected ------------------------------------------------------------------------

  #hello(): void {
    clearTimeout(this.#helloTimer);
    const ref = this.#nextRef();
    this.#helloRef = this.#send({ t: "hello", ref, token: this.#token }) ? ref : 0;
  }

  #signedIn(user: string): void {
    this.#helloRef = 0;
    this.#goodToken = this.#token;
    if (this.#purchases?.user !== user) this.#purchases = this.#purchasesOf(user);
    this.#purchases?.resume();
  }

  #purchasesOf(user: string): Purchases {
    this.#purchases?.pause();
    return new Purchases(this.#store, this.#show, user, {
      nextRef: () => this.#nextRef(),
      send: (command) => this.#send(command),
      now: () => this.clock.now(),
      show: (claims) => this.#apply({ t: "claims", claims }),
    });
  }

  #helloRefused(refusal: RefusedReply): void {
    this.#helloRef = 0;
    if (refusal.name === "other_user" && !this.#state.me) {
      this.#socket.renew(); // it still belongs to a viewer whose time is over
      return;
    }
    if (refusal.name === "other_user") this.#token = this.#goodToken;
    else if (SIGN_IN_OVER.has(refusal.name)) this.#signInOver();
    else if (refusal.retryable) this.#helloLater(refusal.retry_ms);
    this.#apply({ t: "hello_refused", refusal });
  }

  #signInOver(): void {
    this.#token = "";
    this.#purchases?.pause();
  }

  #helloLater(hintMs: number): void {
    const delay = hinted(Math.max(hintMs, HELLO_RETRY_MS), Math.random);
    this.#helloTimer = setTimeout(() => this.#hello(), delay);
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
    this.#listenedWall = Date.now();
    for (const timer of this.#intervals) clearInterval(timer);
    if (isHidden()) {
      this.#intervals = [setInterval(() => this.#heartbeat(), HEARTBEAT_HIDDEN_MS)];
      return;
    }
    this.#intervals = [
      setInterval(() => this.#heartbeat(), HEARTBEAT_MS),
      setInterval(() => this.#purchases?.ask(), HOLD_ASK_MS),
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
    this.#heardWall = Date.now();
    this.#askedLocal = null;
    const { link, epoch } = this.#state;
    const doubted = link.state === "catching_up" || link.state === "offline";
    if (doubted && epoch && this.#socket.open) this.#showLink({ state: "live" });
  }

  #listen(): void {
    const slept = Date.now() - this.#listenedWall > SLEPT_MS;
    this.#listenedWall = Date.now();
    if (slept) this.wake();
    else this.#judgeSilence();
  }

  #judgeSilence(): void {
    const now = this.clock.local();
    const asked = this.#askedLocal;
    if (asked === null) {
      if (now - this.#heardLocal >= QUIET_MS) this.#heartbeat();
    } else if (now - asked >= DEAD_MS) {
      this.#askedLocal = null;
      this.#socket.renew();
    } else if (now - asked >= SILENT_MS) {
      this.#doubt();
    }
  }

  /** No frame has come for so long that the page must say how old it is. */
  #doubt(): void {
    if (this.#state.link.state === "live") this.#showLink(this.#catchingUp());
  }

  // --- connection ------------------------------------------------------------------------------

  #resumePoint(): { epoch: number; seq: number } | null {
    const { epoch, seq } = this.#state;
    return epoch > 0 ? { epoch, seq } : null;
  }

  #connecting(again: boolean): void {
    this.#showLink(again ? this.#catchingUp() : { state: "connecting" });
  }

  /**
   * Server ms of the last frame; 0: there was none. Told by the wall clock: the local one may have
   * stood still while the machine slept, and then takes the server's time along.
   */
  #heardAt(): number {
    return this.#heardWall && this.clock.now() - (Date.now() - this.#heardWall);
  }

  #catchingUp(): Link {
    return { state: "catching_up", heardAt: this.#heardAt() };
  }

  #offline(retryAt: number): Link {
    return { state: "offline", retryAt, heardAt: this.#heardAt() };
  }

  /**
   * The browser says that there is no network. The socket is kept, for it may be wrong or short:
   * any frame makes the page live again, and without one the connection is given up as silent.
   */
  #networkLost(): void {
    if (this.#state.link.state !== "live" && this.#state.link.state !== "catching_up") return;
    this.#showLink(this.#offline(0));
    this.#heartbeat();
  }

  #showLink(link: Link): void {
    this.#apply({ t: "link", link });
  }

  #lost(link: Link): void {
    this.#askedLocal = null;
    this.#helloRef = 0;
    clearTimeout(this.#helloTimer);
    this.#apply({ t: "cut_off" });
    this.#purchases?.cut();
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
