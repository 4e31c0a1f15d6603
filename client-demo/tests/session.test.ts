import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { jsonCodec } from "../src/live/codec";
import type { Claim, Command, RefusedReply, ServerMessage } from "../src/live/messages";
import { LiveSession } from "../src/live/session";
import { backoff, hinted } from "../src/live/socket";
import { claim, MemoryStorage, refusal, stock, tick, welcome } from "./samples";

/** The browser's end of a connection whose other end is the test. */
class FakeSocket {
  readyState = 0;
  binaryType = "blob";
  sent: Command[] = [];
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;

  constructor(readonly url: string) {}

  send(data: string): void {
    this.sent.push(JSON.parse(data));
  }

  close(): void {
    this.readyState = 3;
  }

  open(): void {
    this.readyState = 1;
    this.onopen?.();
  }

  tell(message: ServerMessage): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  end(code: number): void {
    this.readyState = 3;
    this.onclose?.({ code });
  }

  last<T extends Command["t"]>(kind: T): Extract<Command, { t: T }> {
    const found = this.sent.filter((command) => command.t === kind).at(-1);
    if (!found) throw new Error(`no ${kind} was sent`);
    return found as Extract<Command, { t: T }>;
  }
}

const CLAIM = claim().claim_id;
const WISH = { sale: 7, quantity: 1, price: 9900, price_version: 1 };

function connect(store: MemoryStorage | null = new MemoryStorage()) {
  const sockets: FakeSocket[] = [];
  const session = new LiveSession({
    url: "ws://x/ws/demo",
    show: "demo",
    codec: jsonCodec,
    ...(store && { store }),
    open: (url) => {
      const socket = new FakeSocket(url);
      sockets.push(socket);
      return socket as unknown as WebSocket;
    },
  });
  session.start();
  const current = () => {
    const socket = sockets.at(-1);
    if (!socket) throw new Error("no socket");
    return socket;
  };
  return { session, sockets, current };
}

function goLive(room: ReturnType<typeof connect>, part = {}): FakeSocket {
  const socket = room.current();
  socket.open();
  socket.tell(welcome(part));
  return socket;
}

function signIn(room: ReturnType<typeof connect>, user = "u-1"): FakeSocket {
  room.session.signIn("token");
  return accept(room.current(), user);
}

/** The server takes the newest hello. */
function accept(socket: FakeSocket, user = "u-1"): FakeSocket {
  const hello = { user, name: user, role: "viewer", expires_at: 9e12 };
  socket.tell({ t: "accepted", ref: socket.last("hello").ref ?? 0, hello });
  return socket;
}

/** The server sends a frame a second. */
function hear(socket: FakeSocket, seconds: number): void {
  for (let second = 0; second < seconds; second += 1) {
    vi.advanceTimersByTime(1_000);
    socket.tell(tick());
  }
}

function refuseHello(socket: FakeSocket, name: string, part: Partial<RefusedReply> = {}): void {
  socket.tell(refusal(name, { ref: socket.last("hello").ref ?? null, ...part }));
}

function sentBy(socket: FakeSocket, kind: Command["t"]): Command[] {
  return socket.sent.filter((command) => command.t === kind);
}

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

describe("reconnecting", () => {
  test("resumes where the events stopped", () => {
    const room = connect();
    expect(room.current().url).toBe("ws://x/ws/demo");
    const socket = goLive(room);
    socket.tell(tick({ epoch: 100, events: [{ k: "commentary", seq: 6, at: 1, text: "hi" }] }));
    socket.end(1006);
    expect(room.session.state.link.state).toBe("offline");
    vi.advanceTimersByTime(600);
    expect(room.current().url).toBe("ws://x/ws/demo?resume=100.6");
    expect(room.session.state.link.state).toBe("catching_up");
  });

  test("waits as long as the server asked", () => {
    const room = connect();
    const socket = goLive(room);
    socket.tell({ t: "bye", code: 1012, name: "restart", reconnect: true, retry_ms: 4_000 });
    socket.end(1012);
    vi.advanceTimersByTime(3_900);
    expect(room.sockets).toHaveLength(1);
    vi.advanceTimersByTime(2_200);
    expect(room.sockets).toHaveLength(2);
  });

  test.each([4403, 4404, 4429, 1000])("close %d ends for good", (code) => {
    const room = connect();
    goLive(room).end(code);
    vi.advanceTimersByTime(60_000);
    expect(room.sockets).toHaveLength(1);
    expect(room.session.state.link).toMatchObject({ state: "over", code });
  });

  test("a hole in the events asks for them again", () => {
    const room = connect();
    goLive(room).tell(
      tick({ epoch: 100, events: [{ k: "commentary", seq: 9, at: 1, text: "?" }] }),
    );
    vi.advanceTimersByTime(600);
    expect(room.current().url).toContain("resume=100.5");
  });

  test("a server that answers no heartbeat is told catching up, then left", () => {
    const room = connect();
    goLive(room);
    vi.advanceTimersByTime(3_600);
    expect(room.session.state.link).toMatchObject({ state: "catching_up" });
    vi.advanceTimersByTime(3_400);
    expect(room.sockets).toHaveLength(2);
  });

  test("a quiet server is asked for its time after 4 s, and doubted 3 s later", () => {
    const { room, socket } = heardOnce();
    const before = socket.sent.length;
    vi.advanceTimersByTime(3_900);
    expect(socket.sent).toHaveLength(before);
    vi.advanceTimersByTime(600);
    expect(socket.sent.slice(before).map((command) => command.t)).toEqual(["time"]);
    expect(room.session.state.link.state).toBe("live");
    vi.advanceTimersByTime(3_100);
    expect(room.session.state.link).toMatchObject({ state: "catching_up" });
  });

  test("a doubted page tells how old its numbers are, by server time", () => {
    const { room } = heardOnce();
    const heard = room.session.clock.now();
    vi.advanceTimersByTime(7_600);
    expect(room.session.state.link).toEqual({ state: "catching_up", heardAt: heard });
    room.current().end(1006);
    expect(room.session.state.link).toMatchObject({ state: "offline", heardAt: heard });
  });

  test("any frame proves that the server is there", () => {
    const room = connect();
    const socket = goLive(room);
    vi.advanceTimersByTime(4_001);
    socket.tell(tick());
    expect(room.session.state.link.state).toBe("live");
  });

  test("listeners see live only together with the values of now", () => {
    const room = connect();
    goLive(room, { state: { "stock:7": stock() } }).end(1006);
    vi.advanceTimersByTime(600);
    const seen: unknown[] = [];
    room.session.subscribe(({ link, values }) => seen.push([link.state, values.stocks[7]?.left]));
    goLive(room, { seq: 9, state: { "stock:7": stock({ version: 2, left: 3 }) } });
    expect(seen).toEqual([["live", 3]]);
  });

  test("unreadable bytes lead to a new connection", () => {
    const room = connect();
    goLive(room).onmessage?.({ data: "]" });
    vi.advanceTimersByTime(600);
    expect(room.sockets).toHaveLength(2);
  });

  test("delays grow, are jittered and bounded", () => {
    expect(backoff(0, () => 1)).toBe(500);
    expect(backoff(0, () => 0)).toBe(50);
    expect(backoff(30, () => 1)).toBe(15_000);
    expect(hinted(1_000, () => 0)).toBe(1_000);
    expect(hinted(1_000, () => 1)).toBe(1_500);
  });

  test("stop means stop", () => {
    const room = connect();
    const socket = goLive(room);
    room.session.stop();
    vi.advanceTimersByTime(60_000);
    expect(socket.readyState).toBe(3);
    expect(room.sockets).toHaveLength(1);
  });
});

/** A live session that has had the answers to its first questions for the time. */
function heardOnce() {
  const room = connect();
  const socket = goLive(room);
  vi.advanceTimersByTime(1_300);
  socket.tell(tick());
  return { room, socket };
}

describe("a page in a browser", () => {
  let page = Object.assign(new EventTarget(), { hidden: false });

  beforeEach(() => {
    page = Object.assign(new EventTarget(), { hidden: false });
    vi.stubGlobal("window", new EventTarget());
    vi.stubGlobal("document", page);
  });

  afterEach(() => {
    vi.unstubAllGlobals();
  });

  test("shows what another tab of the buyer stored", () => {
    const store = new MemoryStorage();
    const room = connect(store);
    goLive(room);
    signIn(room);
    const other = claim({ phase: "answered", answer: { claim_id: CLAIM, status: "held" } });
    const key = `livesale.claim.demo.u-1.${CLAIM}`;
    store.setItem(key, JSON.stringify(other));
    window.dispatchEvent(Object.assign(new Event("storage"), { key }));
    expect(room.session.state.claims).toEqual([other]);
    window.dispatchEvent(Object.assign(new Event("storage"), { key: null }));
  });

  function turn(hidden: boolean): void {
    page.hidden = hidden;
    page.dispatchEvent(new Event("visibilitychange"));
  }

  test("is offline at once when the browser says so, and live with the next frame", () => {
    const { room, socket } = heardOnce();
    window.dispatchEvent(new Event("offline"));
    expect(room.session.state.link).toMatchObject({ state: "offline" });
    expect(room.sockets).toHaveLength(1);
    socket.tell(tick());
    expect(room.session.state.link.state).toBe("live");
  });

  test("without a frame after it, the connection is given up", () => {
    const { room } = heardOnce();
    window.dispatchEvent(new Event("offline"));
    vi.advanceTimersByTime(7_000);
    expect(room.sockets).toHaveLength(2);
  });

  test("comes back at once with the network", () => {
    const { room, socket } = heardOnce();
    for (let times = 0; times < 8; times += 1) {
      room.current().end(1006);
      vi.advanceTimersByTime(20_000);
    }
    room.current().end(1006);
    const before = room.sockets.length;
    window.dispatchEvent(new Event("online"));
    expect(room.sockets).toHaveLength(before + 1);
    expect(socket).not.toBe(room.current());
  });

  test("asks seldom while it is hidden, doubts nobody, and asks at once when it is shown", () => {
    const { room, socket } = heardOnce();
    turn(true);
    const before = socket.sent.length;
    vi.advanceTimersByTime(29_000);
    expect(socket.sent).toHaveLength(before);
    vi.advanceTimersByTime(31_500);
    expect(socket.sent.slice(before).map((command) => command.t)).toEqual(["time", "time"]);
    expect(room.session.state.link.state).toBe("live");
    const heard = room.session.clock.now() - 60_500;
    turn(false);
    expect(socket.sent).toHaveLength(before + 3);
    expect(room.session.state.link).toEqual({ state: "catching_up", heardAt: heard });
    socket.tell(tick());
    expect(room.session.state.link.state).toBe("live");
  });

  test("is live at once when it is shown soon after a frame", () => {
    const { room } = heardOnce();
    turn(true);
    vi.advanceTimersByTime(3_000);
    turn(false);
    expect(room.session.state.link.state).toBe("live");
  });

  test("is offline without a time of return: none is planned", () => {
    const { room } = heardOnce();
    window.dispatchEvent(new Event("offline"));
    expect(room.session.state.link).toMatchObject({ state: "offline", retryAt: 0 });
  });

  test("of a machine that slept says how old it is, although its clock stood still", () => {
    const { room, socket } = heardOnce();
    const before = socket.sent.length;
    const heard = room.session.clock.now();
    vi.setSystemTime(Date.now() + 3_600_000);
    vi.advanceTimersByTime(500);
    expect(room.session.state.link).toEqual({
      state: "catching_up",
      heardAt: heard - 3_600_000,
    });
    expect(socket.sent.slice(before).map((command) => command.t)).toEqual(["time"]);
    socket.tell(tick());
    expect(room.session.state.link.state).toBe("live");
  });

  test("is told once of what happens, however often it was started", () => {
    const { room, socket } = heardOnce();
    room.session.start();
    const before = socket.sent.length;
    window.dispatchEvent(new Event("online"));
    expect(socket.sent).toHaveLength(before + 1);
  });

  test("is left alone after stop", () => {
    const { room, socket } = heardOnce();
    room.session.stop();
    const before = socket.sent.length;
    const timers = vi.getTimerCount();
    turn(true);
    turn(false);
    window.dispatchEvent(new Event("online"));
    room.session.wake();
    expect(room.sockets).toHaveLength(1);
    expect(socket.sent).toHaveLength(before);
    expect(vi.getTimerCount()).toBe(timers);
  });
});

describe("buying", () => {
  test("stores the claim before it is sent", () => {
    const store = new MemoryStorage();
    const room = connect(store);
    goLive(room);
    const socket = signIn(room);
    const storedAtSend: number[] = [];
    socket.send = () => storedAtSend.push(store.length);
    room.session.buy(WISH);
    expect(storedAtSend).toEqual([1]);
  });

  test("needs a sign-in", () => {
    const room = connect();
    goLive(room);
    expect(room.session.buy(WISH)).toBeNull();
  });

  test("twice before an answer is one claim", () => {
    const room = connect();
    goLive(room);
    const socket = signIn(room);
    const first = room.session.buy(WISH);
    expect(room.session.buy(WISH)).toEqual(first);
    room.session.buy({ ...WISH, sale: 8 });
    expect(sentBy(socket, "claim")).toHaveLength(2);
  });

  test("works where the browser blocks storage", () => {
    const blocked = {
      get(): Storage {
        throw new DOMException("blocked", "SecurityError");
      },
      configurable: true,
    };
    Object.defineProperty(globalThis, "localStorage", blocked);
    const room = connect(null);
    Reflect.deleteProperty(globalThis, "localStorage");
    goLive(room);
    const socket = signIn(room);
    room.session.buy(WISH);
    signIn(room);
    expect(socket.last("claim")).toMatchObject({ attempt: 1 });
  });

  test("remembers when the wait ended", () => {
    const room = connect();
    goLive(room);
    const socket = signIn(room);
    room.session.buy(WISH);
    const { ref, claim_id } = socket.last("claim");
    socket.tell({ t: "accepted", ref, claim: { claim_id, status: "held", quantity: 1 } });
    expect(room.session.state.claims[0]).not.toHaveProperty("settled_at");
    socket.tell({ t: "order", order: { claim_id, status: "confirmed" } });
    const settled_at = room.session.clock.now();
    vi.advanceTimersByTime(5_000);
    socket.tell({ t: "order", order: { claim_id, status: "paid" } });
    expect(room.session.state.claims[0]).toMatchObject({ settled_at });
  });

  test("a busy server gets the pause it asks for", () => {
    const room = connect();
    goLive(room);
    const socket = signIn(room);
    room.session.buy(WISH);
    const { ref } = socket.last("claim");
    socket.tell(refusal("outcome_unknown", { ref, retryable: true, retry_ms: 20_000 }));
    hear(socket, 19);
    expect(sentBy(socket, "claim")).toHaveLength(1);
    hear(socket, 12);
    expect(sentBy(socket, "claim")).toHaveLength(2);
  });

  test("goes from sending over held to confirmed", () => {
    const room = connect();
    goLive(room);
    const socket = signIn(room);
    room.session.buy(WISH);
    const { ref, claim_id } = socket.last("claim");
    expect(room.session.state.claims[0]?.phase).toBe("sending");
    socket.tell({ t: "accepted", ref, claim: { claim_id, status: "held", quantity: 1 } });
    expect(room.session.state.claims[0]?.answer?.status).toBe("held");
    socket.tell({ t: "order", order: { claim_id, status: "confirmed", order_id: 3 } });
    expect(room.session.state.claims[0]?.answer).toMatchObject({
      status: "confirmed",
      order_id: 3,
    });
  });

  test("an unknown outcome sends the same claim again", () => {
    const room = connect();
    goLive(room);
    const socket = signIn(room);
    room.session.buy(WISH);
    const first = socket.last("claim");
    socket.tell(refusal("outcome_unknown", { ref: first.ref, retryable: true, retry_ms: 300 }));
    expect(room.session.state.claims[0]?.phase).toBe("unknown");
    vi.advanceTimersByTime(500);
    const second = socket.last("claim");
    expect(second).toEqual({ ...first, ref: second.ref, attempt: 1 });
    expect(second.ref).not.toBe(first.ref);
  });

  test("a cut connection sends the same claim again after the sign-in", () => {
    const room = connect();
    goLive(room);
    const before = signIn(room);
    room.session.buy(WISH);
    const first = before.last("claim");
    before.end(1006);
    expect(room.session.state.claims[0]?.phase).toBe("unknown");
    vi.advanceTimersByTime(600);
    const socket = goLive(room, { recovered: true });
    const ref = socket.last("hello").ref ?? 0;
    const hello = { user: "u-1", name: "", role: "viewer", expires_at: 9e12 };
    socket.tell({ t: "accepted", ref, hello });
    expect(socket.last("claim")).toMatchObject({ claim_id: first.claim_id, attempt: 1 });
  });

  test("a reload sends the same claim again", () => {
    const store = new MemoryStorage();
    const before = connect(store);
    goLive(before);
    signIn(before).end(1006);
    before.session.buy(WISH);
    const id = before.session.state.claims[0]?.claim_id;
    before.session.stop();
    const after = connect(store);
    goLive(after);
    expect(signIn(after).last("claim")).toMatchObject({ claim_id: id, attempt: 1 });
  });

  test("a refusal is final: the next try has a new id", () => {
    const room = connect();
    goLive(room);
    const socket = signIn(room);
    room.session.buy(WISH);
    const first = socket.last("claim");
    socket.tell(refusal("sold_out", { ref: first.ref, retryable: true, retry_ms: 1_000 }));
    vi.advanceTimersByTime(3_000);
    room.session.buy(WISH);
    const claims = socket.sent.filter((command): command is Claim => command.t === "claim");
    expect(new Set(claims.map((claim) => claim.claim_id)).size).toBe(2);
    expect(claims).toHaveLength(2);
  });

  test("a refusal of an earlier sending is not the answer to the newest", () => {
    const room = connect();
    goLive(room);
    const socket = signIn(room);
    room.session.buy(WISH);
    const first = socket.last("claim");
    signIn(room); // the token was renewed
    const second = socket.last("claim");
    expect(second).toMatchObject({ claim_id: first.claim_id, attempt: 1 });
    socket.tell(refusal("sold_out", { ref: first.ref }));
    expect(room.session.state.claims[0]?.phase).toBe("sending");
    socket.tell(refusal("sold_out", { ref: second.ref }));
    expect(room.session.state.claims[0]?.phase).toBe("refused");
  });

  test("a hold without news is asked for", () => {
    const room = connect();
    goLive(room);
    const socket = signIn(room);
    room.session.buy(WISH);
    const { ref, claim_id } = socket.last("claim");
    socket.tell({ t: "accepted", ref, claim: { claim_id, status: "held" } });
    vi.advanceTimersByTime(3_100);
    expect(socket.last("order_status").claim_id).toBe(claim_id);
  });

  test("a hold the server has lost goes out again with its proof", () => {
    const room = connect();
    goLive(room);
    const socket = signIn(room);
    room.session.buy(WISH);
    const { ref, claim_id } = socket.last("claim");
    const proof = { receipt: "9f2c", epoch: 1, seq: 42, price: 9900 };
    socket.tell({ t: "accepted", ref, claim: { claim_id, status: "held", ...proof } });
    vi.advanceTimersByTime(3_100);
    const asked = socket.last("order_status").ref;
    socket.tell({ t: "accepted", ref: asked, order: { claim_id, status: "not_seen" } });
    vi.advanceTimersByTime(500);
    expect(socket.last("claim")).toMatchObject({ claim_id, attempt: 1, proof });
  });

  test("a claim made on another device is shown too", () => {
    const room = connect();
    goLive(room);
    const order = { claim_id: "0199c5e2-7b3c-7c11-9e2a-1b2c3d4e5f60", sale: 7, quantity: 2 };
    signIn(room).tell({ t: "order", order: { ...order, status: "confirmed" } });
    expect(room.session.state.claims).toMatchObject([{ sale: 7, quantity: 2, phase: "answered" }]);
  });

  test("another buyer of the same browser does not see or resend it", () => {
    const store = new MemoryStorage();
    const before = connect(store);
    goLive(before);
    signIn(before);
    before.session.buy(WISH);
    before.session.stop();
    const after = connect(store);
    goLive(after);
    const socket = signIn(after, "u-2");
    expect(socket.sent.some((command) => command.t === "claim")).toBe(false);
    expect(after.session.state.claims).toEqual([]);
  });
});

describe("a claim that was cut off long ago", () => {
  /** By server time a day later, the buyer is signed in again. */
  function dayLater() {
    const room = connect();
    goLive(room);
    const before = signIn(room);
    room.session.buy(WISH);
    const { claim_id } = before.last("claim");
    before.end(1006);
    vi.advanceTimersByTime(600);
    const socket = accept(goLive(room, { now: 1_000_000 + 24 * 3_600_000 }));
    const { ref } = socket.last("order_status");
    return { room, socket, claim_id, ref };
  }

  test("is asked for, not sent again", () => {
    const { socket, claim_id } = dayLater();
    expect(socket.last("order_status").claim_id).toBe(claim_id);
    expect(sentBy(socket, "claim")).toEqual([]);
  });

  test("and never arrived ends as refused: the buyer may try anew", () => {
    const { room, socket, claim_id, ref } = dayLater();
    socket.tell({ t: "accepted", ref, order: { claim_id, status: "not_seen" } });
    expect(room.session.state.claims[0]?.phase).toBe("refused");
    room.session.buy(WISH);
    expect(socket.last("claim").claim_id).not.toBe(claim_id);
  });

  test("and did arrive is shown as what became of it", () => {
    const { room, socket, claim_id, ref } = dayLater();
    socket.tell({ t: "accepted", ref, order: { claim_id, status: "confirmed" } });
    expect(room.session.state.claims[0]?.answer?.status).toBe("confirmed");
  });
});

describe("a token whose time is over", () => {
  function expired() {
    const room = connect();
    goLive(room);
    const socket = signIn(room);
    room.session.buy(WISH);
    const first = socket.last("claim");
    socket.tell(refusal("outcome_unknown", { ref: first.ref, retryable: true, retry_ms: 300 }));
    room.session.chat("还有吗");
    const { ref = null } = socket.last("chat");
    socket.tell(refusal("token_expired", { ref, retryable: true }));
    return { room, socket, first };
  }

  test("ends the sign-in, whatever command was refused for it", () => {
    const { room } = expired();
    expect(room.session.state.me).toBeNull();
    expect(room.session.state.signInRefusal?.name).toBe("token_expired");
    expect(room.session.buy(WISH)).toBeNull();
  });

  test("is not tried again, and claims wait for the next sign-in", () => {
    const { room, socket, first } = expired();
    hear(socket, 20);
    expect(sentBy(socket, "claim")).toHaveLength(1);
    signIn(room);
    expect(socket.last("claim")).toMatchObject({ claim_id: first.claim_id, attempt: 1 });
  });

  test("takes no new token away that is on its way", () => {
    const { room, socket } = expired();
    room.session.signIn("new");
    socket.tell(refusal("token_expired", { ref: 900 }));
    accept(socket);
    socket.end(1006);
    vi.advanceTimersByTime(600);
    expect(goLive(room).last("hello").token).toBe("new");
  });

  test("and another viewer's after it lead to a new connection", () => {
    const { room, socket } = expired();
    room.session.signIn("other");
    refuseHello(socket, "other_user");
    vi.advanceTimersByTime(600);
    const next = accept(goLive(room), "u-2");
    expect(next).not.toBe(socket);
    expect(next.last("hello").token).toBe("other");
    expect(room.session.state.me?.user).toBe("u-2");
  });

  test("and another viewer's: the first one's claims are neither shown nor sent", () => {
    const { room, socket } = expired();
    room.session.signIn("other");
    refuseHello(socket, "other_user");
    vi.advanceTimersByTime(600);
    const next = accept(goLive(room), "u-2");
    expect(room.session.state.claims).toEqual([]);
    hear(next, 20);
    expect(sentBy(next, "claim")).toEqual([]);
  });
});

describe("a sign-in that is refused", () => {
  test("for a passing reason is tried again, and nobody is signed out", () => {
    const room = connect();
    goLive(room);
    const socket = signIn(room);
    room.session.signIn("renewed");
    refuseHello(socket, "rate_limited", { retryable: true, retry_ms: 1_000 });
    expect(room.session.state.me?.user).toBe("u-1");
    const before = sentBy(socket, "hello").length;
    vi.advanceTimersByTime(1_600);
    expect(sentBy(socket, "hello")).toHaveLength(before + 1);
    accept(socket);
    expect(room.session.state.signInRefusal).toBeNull();
  });

  test("because the connection is another viewer's leaves that one signed in", () => {
    const room = connect();
    goLive(room);
    const socket = signIn(room);
    room.session.signIn("other");
    refuseHello(socket, "other_user");
    expect(room.session.state.me?.user).toBe("u-1");
    socket.end(1006);
    vi.advanceTimersByTime(600);
    expect(goLive(room).last("hello").token).toBe("token");
  });
});

describe("chat, likes, clock", () => {
  test("taps are sent together and bounded", () => {
    const room = connect();
    goLive(room);
    const socket = signIn(room);
    for (let tap = 0; tap < 130; tap += 1) room.session.like();
    vi.advanceTimersByTime(300);
    expect(socket.last("like").taps).toBe(100);
    expect(socket.sent.filter((command) => command.t === "like")).toHaveLength(1);
  });

  test("a line written while offline is told unsent", () => {
    const room = connect();
    goLive(room);
    signIn(room).end(1006);
    room.session.chat("还有吗");
    expect(room.session.state.chat.at(-1)?.own).toBe("unsent");
  });

  test("listeners get own accepted lines once, for the danmaku", () => {
    const room = connect();
    goLive(room);
    const socket = signIn(room);
    const lines: string[] = [];
    room.session.onLines((batch) => lines.push(...batch.map((line) => line.text)));
    room.session.chat("冲!");
    const ref = socket.last("chat").ref ?? 0;
    socket.tell({ t: "accepted", ref, chat: { id: "h-1", text: "冲!" } });
    const line = { id: "h-1", user: "u-1", name: "u-1", role: "viewer", text: "冲!" };
    socket.tell(tick({ chat: [line] }));
    expect(lines).toEqual(["冲!"]);
  });

  test("a refused token is not used again", () => {
    const room = connect();
    const socket = goLive(room);
    room.session.signIn("old");
    socket.tell(refusal("token_expired", { ref: socket.last("hello").ref ?? null }));
    expect(room.session.state.signInRefusal?.name).toBe("token_expired");
    socket.end(1006);
    vi.advanceTimersByTime(600);
    const next = goLive(room);
    expect(next.sent.some((command) => command.t === "hello")).toBe(false);
  });
});
