/** Two tabs of one buyer: one of them sends a claim, and both show the same. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type ClaimRecord, later } from "../src/live/claims";
import type { ClaimState, Command } from "../src/live/messages";
import { Purchases } from "../src/live/purchases";
import { MemoryStorage, refusal } from "./samples";

const WISH = { sale: 7, quantity: 1, price: 9900, price_version: 1 };

/** One storage of a browser: what one tab writes is told to the others, later. */
class Browser {
  readonly storage = new MemoryStorage();
  readonly tabs: Tab[] = [];

  open(): Tab {
    const tab = new Tab(this);
    this.tabs.push(tab);
    tab.purchases.resume();
    return tab;
  }

  wrote(by: Tab, key: string): void {
    for (const tab of this.tabs) if (tab !== by) queueMicrotask(() => tab.purchases.stored(key));
  }
}

class Tab {
  readonly sent: Command[] = [];
  claims: readonly ClaimRecord[] = [];
  readonly purchases: Purchases;
  #ref = 0;

  constructor(browser: Browser) {
    const { storage } = browser;
    const store = {
      get length() {
        return storage.length;
      },
      key: (index: number) => storage.key(index),
      getItem: (key: string) => storage.getItem(key),
      removeItem: (key: string) => storage.removeItem(key),
      setItem: (key: string, value: string) => {
        storage.setItem(key, value);
        browser.wrote(this, key);
      },
    };
    this.purchases = new Purchases(store, "demo", "u-1", {
      nextRef: () => {
        this.#ref += 1;
        return this.#ref;
      },
      send: (command) => this.sent.push(command) > 0,
      now: () => 1_000_000,
      show: (claims) => {
        this.claims = claims;
      },
    });
  }

  get claimed() {
    return this.sent.filter((command) => command.t === "claim");
  }

  told(status: ClaimState["status"]): void {
    const { claim_id } = this.claims[0] as ClaimRecord;
    this.purchases.told({ claim_id, status, sale: 7, quantity: 1 }, this.claimed.at(-1)?.ref);
  }

  refused(name: Parameters<typeof refusal>[0]): void {
    this.purchases.refused({ ...refusal(name), ref: this.claimed.at(-1)?.ref ?? 0 });
  }
}

/** Web Locks of one browser: exclusive, in the order of the requests. */
class Locks {
  readonly #last = new Map<string, Promise<unknown>>();

  request(name: string, work: () => unknown): Promise<unknown> {
    const turn = (this.#last.get(name) ?? Promise.resolve()).then(work);
    this.#last.set(name, turn);
    return turn;
  }
}

const settle = () => vi.advanceTimersByTimeAsync(0);

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("navigator", { locks: new Locks() });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("with locks", () => {
  test("the second tab shows the claim and leaves it to the first to send", async () => {
    const browser = new Browser();
    const [one, two] = [browser.open(), browser.open()];
    one.purchases.buy(WISH);
    await settle();
    expect(two.claims).toEqual(one.claims);
    expect(two.purchases.buy(WISH)).toEqual(one.claims[0]);
    const late = browser.open();
    await vi.advanceTimersByTimeAsync(10_000);
    expect([one, two, late].map((tab) => tab.claimed.length)).toEqual([1, 0, 0]);
  });

  test.each(["held", "confirmed"] as const)("both show that it is %s", async (status) => {
    const browser = new Browser();
    const [one, two] = [browser.open(), browser.open()];
    one.purchases.buy(WISH);
    one.told(status);
    await settle();
    expect(two.claims[0]?.answer?.status).toBe(status);
    expect(two.claims).toEqual(one.claims);
  });

  test("both show that it was refused", async () => {
    const browser = new Browser();
    const [one, two] = [browser.open(), browser.open()];
    one.purchases.buy(WISH);
    await settle();
    one.refused("sold_out");
    await settle();
    expect(two.claims[0]?.phase).toBe("refused");
    expect(two.claims).toEqual(one.claims);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(two.claimed).toEqual([]);
  });

  test("the second tab asks about it meanwhile, and its answer reaches the first", async () => {
    const browser = new Browser();
    const [one, two] = [browser.open(), browser.open()];
    one.purchases.buy(WISH);
    await settle();
    two.purchases.ask();
    expect(two.sent.map(({ t }) => t)).toEqual(["order_status"]);
    two.told("held");
    await settle();
    expect(one.claims[0]?.phase).toBe("answered");
    expect(one.claims).toEqual(two.claims);
  });

  test("when the first tab goes the second sends the same claim once more", async () => {
    const browser = new Browser();
    const [one, two] = [browser.open(), browser.open()];
    const { claim_id } = one.purchases.buy(WISH);
    await vi.advanceTimersByTimeAsync(2_000);
    one.purchases.cut();
    await settle();
    expect(two.claimed).toMatchObject([{ claim_id, attempt: 1 }]);
    one.purchases.resume();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(one.claimed).toHaveLength(1);
    expect(one.claims[0]?.attempt).toBe(1);
  });

  test("a tab that is cut off leaves its new claim to one that is not", async () => {
    const browser = new Browser();
    const [one, two] = [browser.open(), browser.open()];
    one.purchases.cut();
    const { claim_id } = one.purchases.buy(WISH);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(one.claimed).toEqual([]);
    expect(two.claimed[0]).toMatchObject({ claim_id });
  });

  test("a tab that nobody sees leaves the claim to one that waits", async () => {
    const browser = new Browser();
    const [one, two] = [browser.open(), browser.open()];
    const { claim_id } = one.purchases.buy(WISH);
    await vi.advanceTimersByTimeAsync(2_000);
    one.purchases.stepBack();
    await settle();
    expect(two.claimed).toMatchObject([{ claim_id, attempt: 1 }]);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(one.claimed).toHaveLength(1);
  });

  test("a tab that nobody sees goes on when no other waits", async () => {
    const one = new Browser().open();
    one.purchases.buy(WISH);
    one.purchases.stepBack();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(one.claimed).toHaveLength(2);
  });

  test("a tab that was halted finds what was bought meanwhile and buys no second one", async () => {
    const browser = new Browser();
    const [one, two] = [browser.open(), browser.open()];
    browser.tabs.length = 0; // nobody is told
    const { claim_id } = one.purchases.buy(WISH);
    expect(two.purchases.buy(WISH).claim_id).toBe(claim_id);
  });

  test("a claim that both find after a restart is sent by one", async () => {
    const browser = new Browser();
    const before = browser.open();
    before.purchases.buy(WISH);
    before.purchases.cut();
    const [one, two] = [browser.open(), browser.open()];
    await settle();
    expect([one.claimed.length, two.claimed.length]).toEqual([1, 0]);
  });

  test("a hold that the server has lost is proved by one of them", async () => {
    const browser = new Browser();
    const [one, two] = [browser.open(), browser.open()];
    one.purchases.buy(WISH);
    one.told("held");
    await settle();
    for (const tab of [two, one]) tab.told("not_seen");
    await vi.advanceTimersByTimeAsync(1_000);
    expect(one.claimed.length + two.claimed.length).toBe(2);
    expect(one.claims).toEqual(two.claims);
  });

  test("locks that are refused stop nobody", async () => {
    vi.stubGlobal("navigator", { locks: { request: () => Promise.reject(new Error("denied")) } });
    const browser = new Browser();
    const before = browser.open();
    before.purchases.buy(WISH);
    before.purchases.cut();
    browser.tabs.length = 0;
    const after = browser.open();
    await settle();
    expect(after.claimed).toHaveLength(1);
  });
});

describe("without locks", () => {
  beforeEach(() => void vi.stubGlobal("navigator", {}));

  test("a claim of another tab is shown and not sent again", async () => {
    const browser = new Browser();
    const [one, two] = [browser.open(), browser.open()];
    one.purchases.buy(WISH);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(two.claimed).toEqual([]);
    one.told("confirmed");
    await settle();
    expect(two.claims).toEqual(one.claims);
  });

  test("a tab opened meanwhile sends the same id, and the newest sending decides for both", async () => {
    const browser = new Browser();
    const one = browser.open();
    const { claim_id } = one.purchases.buy(WISH);
    const two = browser.open();
    expect(two.claimed).toMatchObject([{ claim_id, attempt: 1 }]);
    await settle();
    one.refused("sold_out");
    expect(one.claims[0]?.phase).toBe("sending");
    two.told("held");
    await settle();
    expect(one.claims[0]?.answer?.status).toBe("held");
    expect(one.claims).toEqual(two.claims);
  });

  test("a refusal that comes before the news of the other's sending is not believed either", async () => {
    const browser = new Browser();
    const one = browser.open();
    one.purchases.buy(WISH);
    browser.open();
    one.refused("sold_out");
    expect(one.claims[0]).toMatchObject({ phase: "sending", attempt: 1 });
  });
});

test("keys of others mean nothing", () => {
  const tab = new Browser().open();
  for (const key of ["", "livesale.prefs", "x".repeat(99)]) tab.purchases.stored(key);
  expect(tab.claims).toEqual([]);
});

describe("of two copies", () => {
  const claim = (part: Partial<ClaimRecord>): ClaimRecord => ({
    ...{ ...WISH, claim_id: "c", attempt: 0, made_at: 0, phase: "sending" },
    ...{ answer: null, refusal: null },
    ...part,
  });
  const held = claim({ phase: "answered", answer: { claim_id: "c", status: "held" } });
  const confirmed = claim({ phase: "answered", answer: { claim_id: "c", status: "confirmed" } });

  test.each<[string, ClaimRecord, ClaimRecord]>([
    ["an answer and a refusal of a newer sending", held, claim({ phase: "refused", attempt: 3 })],
    ["two answers", confirmed, held],
    ["a hold found again and its refusal", held, claim({ phase: "refused", answer: held.answer })],
    ["two sendings", claim({ attempt: 1 }), claim({ phase: "refused" })],
    ["a refusal and its sending", claim({ phase: "refused" }), claim({})],
  ])("%s: the first is later", (_, first, second) => {
    expect(later(first, second)).toBe(first);
    expect(later(second, first)).toBe(first);
  });

  test("that know the same the own one stays", () => {
    const lost = claim({ phase: "unknown", answer: held.answer });
    expect(later(lost, held)).toBe(lost);
  });
});
