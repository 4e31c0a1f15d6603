/**
 * One WebSocket that comes back: server hints first, exponential back-off with full jitter
 * otherwise, the resume point in the URL, and no reconnect after a close that forbids it.
 */

import type { Codec } from "./codec";
import { CLOSES, reconnectsAfter } from "./errors";
import type { Bye, Command, ServerMessage } from "./messages";

export interface ResumePoint {
  epoch: number;
  seq: number;
}

export interface SocketHandlers {
  onMessage(message: ServerMessage): void;
  onConnecting(again: boolean): void;
  /** The connection ended and a new one is tried in `delayMs`. */
  onOffline(delayMs: number): void;
  /** The connection ended for good. */
  onOver(code: number, name: string): void;
}

export interface SocketOptions {
  /** ws:// or wss:// address of the show, without query. */
  url: string;
  codec: Codec;
  handlers: SocketHandlers;
  resume(): ResumePoint | null;
  /** For tests and other runtimes; the browser's own by default. */
  open?: (url: string, subprotocol: string) => WebSocket;
  random?: () => number;
}

const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 15_000;
/** A socket that is not open after this long is given up. */
const OPEN_TIMEOUT_MS = 10_000;

/** Full jitter over the exponential step, never below a tenth of it. */
export function backoff(failures: number, random: () => number): number {
  const step = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.min(failures, 10));
  return step * (0.1 + 0.9 * random());
}

/** The server's hint, spread over half as much again so that a room does not return at once. */
export function hinted(retryMs: number, random: () => number): number {
  return retryMs * (1 + random() / 2);
}

export class LiveSocket {
  readonly #options: SocketOptions;
  readonly #random: () => number;
  #socket: WebSocket | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;
  #bye: Bye | null = null;
  #everOpened = false;
  #stopped = true;

  constructor(options: SocketOptions) {
    this.#options = options;
    this.#random = options.random ?? Math.random;
  }

  start(): void {
    this.#stopped = false;
    if (!this.#socket) this.#connect();
  }

  /** End for good; nothing is called afterwards. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#detach()?.close(1000);
  }

  /** Whether a command can be sent now. */
  get open(): boolean {
    return this.#socket?.readyState === 1;
  }

  /** True when the bytes were handed to the browser; false when there is no open connection. */
  send(command: Command): boolean {
    if (!this.#socket || !this.open) return false;
    this.#socket.send(this.#options.codec.encode(command));
    return true;
  }

  /** The connection is useless (silent, or a hole in the events): leave it for a new one. */
  renew(): void {
    if (this.#stopped || !this.#socket) return;
    this.#detach()?.close(1000);
    this.#retry(0);
  }

  /** The network is back, or the page is shown again: do not wait for the timer. */
  wake(): void {
    if (!this.#stopped && !this.#socket) this.#connect();
  }

  #connect(): void {
    clearTimeout(this.#timer);
    this.#bye = null;
    const { codec, handlers } = this.#options;
    handlers.onConnecting(this.#everOpened);
    const open = this.#options.open ?? ((url, protocol) => new WebSocket(url, protocol));
    const socket = open(this.#address(), codec.subprotocol);
    socket.binaryType = "arraybuffer";
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => this.#closed(event.code);
    this.#socket = socket;
    this.#timer = setTimeout(() => this.#tooLate(), OPEN_TIMEOUT_MS);
    socket.onopen = () => clearTimeout(this.#timer);
  }

  #address(): string {
    const point = this.#options.resume();
    return point ? `${this.#options.url}?resume=${point.epoch}.${point.seq}` : this.#options.url;
  }

  #tooLate(): void {
    this.#detach()?.close();
    this.#closed(1006);
  }

  #receive(data: unknown): void {
    let message: ServerMessage | null;
    try {
      message = this.#options.codec.decode(data);
    } catch {
      this.renew(); // Bytes we cannot read: the state may have a hole, start from a snapshot.
      return;
    }
    if (message?.t === "welcome") this.#welcomed();
    if (message?.t === "bye") this.#bye = message;
    if (message) this.#options.handlers.onMessage(message);
  }

  #welcomed(): void {
    this.#failures = 0;
    this.#everOpened = true;
  }

  #closed(code: number): void {
    const bye = this.#bye;
    this.#detach();
    if (this.#stopped) return;
    const forGood = bye ? !bye.reconnect : !reconnectsAfter(code);
    if (forGood) this.#end(bye?.code ?? code, bye?.name ?? CLOSES[code]?.name ?? "closed");
    else this.#retry(bye?.retry_ms ?? 0);
  }

  #end(code: number, name: string): void {
    this.#stopped = true;
    this.#options.handlers.onOver(code, name);
  }

  #retry(hintMs: number): void {
    const delay = hintMs > 0 ? hinted(hintMs, this.#random) : backoff(this.#failures, this.#random);
    this.#failures += 1;
    this.#timer = setTimeout(() => this.#connect(), delay);
    this.#options.handlers.onOffline(delay);
  }

  /** Forget the socket without hearing from it again. */
  #detach(): WebSocket | null {
    const socket = this.#socket;
    clearTimeout(this.#timer);
    this.#socket = null;
    if (socket) {
      socket.onopen = null;
      socket.onmessage = null;
      socket.onclose = null;
    }
    return socket;
  }
}
