import { describe, expect, test } from "vitest";
import type { ClaimPhase, ClaimRecord, ClaimStatus } from "../src/live";
import {
  type BuyFacts,
  buyState,
  canPress,
  nextToPay,
  pressed,
  unitsAllowed,
  unitsBought,
  unitsHeld,
  unitsTaken,
} from "../src/viewer/buying";
import { claim, refusal, sale, stock } from "./samples";

function facts(part: Partial<BuyFacts> = {}): BuyFacts {
  const open = { linkLive: true, signedIn: true, showPhase: "live", more: false, now: 50_000 };
  return { ...open, sale: sale(), stock: stock(), claims: [], ...part };
}

function told(status: ClaimStatus, quantity = 1): ClaimRecord {
  const answer = { claim_id: claim().claim_id, status, quantity };
  return claim({ phase: "answered", answer, quantity });
}

function full(part: Partial<BuyFacts>): Partial<BuyFacts> {
  return { claims: [told("confirmed", 2)], ...part };
}

function signedOut(phase: ClaimPhase): Partial<BuyFacts> {
  return { signedIn: false, claims: [claim({ phase })] };
}

test.each<[string, Partial<BuyFacts>, string]>([
  ["everything is open", {}, "open"],
  ["nobody is signed in", { signedIn: false }, "sign_in"],
  ["the window has not come", { now: 400 }, "not_open"],
  ["the sale has no window yet", { sale: sale({ opens_at: 0, closes_at: 0 }) }, "scheduled"],
  ["the window is over", { now: 100_000 }, "closed"],
  ["the host closed the sale", { sale: sale({ phase: "closed" }) }, "closed"],
  ["nothing is left", { stock: stock({ left: 0, sold: 10 }) }, "sold_out"],
  ["the show is paused", { showPhase: "paused" }, "show_paused"],
  ["the show has not begun", { showPhase: "scheduled" }, "show_scheduled"],
  ["the show is over", { showPhase: "ended" }, "show_ended"],
  ["the connection is down", { linkLive: false }, "offline"],
  ["a claim is on its way", { claims: [claim()] }, "waiting"],
  ["its outcome is unknown", { claims: [claim({ phase: "unknown" })] }, "checking"],
  ["it is being sent again", { claims: [claim({ attempt: 1 })] }, "checking"],
  ["units are held", { claims: [told("held")] }, "held"],
  ["the limit is used up", { claims: [told("confirmed", 2)] }, "limit"],
  ["the limit is used up and the connection is down", full({ linkLive: false }), "limit"],
  ["the limit is used up and the room is empty", full({ stock: stock({ left: 0 }) }), "limit"],
  ["the limit was used up before the sale closed", full({ now: 100_000 }), "closed"],
  ["an outcome is unknown after the token ended", signedOut("unknown"), "sign_in"],
  ["one of two units is bought", { claims: [told("confirmed")] }, "open"],
  ["an earlier order expired", { claims: [told("expired", 2)] }, "open"],
])("when %s the button says so", (_, part, kind) => {
  expect(buyState(facts(part)).kind).toBe(kind);
});

test("an own claim on its way counts more than a sold-out room", () => {
  const soldOut = facts({ stock: stock({ left: 0 }), claims: [claim({ phase: "unknown" })] });
  expect(buyState(soldOut).kind).toBe("checking");
});

describe("after a refusal", () => {
  const last = (name: string, part = {}) =>
    claim({ phase: "refused", refusal: refusal(name, part) });

  test("busy waits as long as the server asked, then offers a retry", () => {
    const claims = [last("busy", { retryable: true, retry_ms: 500 })];
    expect(buyState(facts({ claims, now: 50_100 }))).toEqual({ kind: "busy", inMs: 400 });
    expect(buyState(facts({ claims, now: 50_600 })).kind).toBe("retry");
  });

  test("a changed price is offered", () => {
    expect(buyState(facts({ claims: [last("price_changed")] })).kind).toBe("price_changed");
  });

  test("the limit as the server counts it is believed", () => {
    expect(buyState(facts({ claims: [last("limit_reached")] })).kind).toBe("limit");
  });

  test("a retry needs no rest: it is what the buyer pressed for", () => {
    const early = last("sale_not_open", { retryable: true, retry_ms: 500 });
    const claims = [{ ...early, settled_at: 50_300 }];
    expect(buyState(facts({ claims, now: 50_700 }))).toEqual({ kind: "busy", inMs: 100 });
    const retry = buyState(facts({ claims, now: 50_800 }));
    expect(retry).toEqual({ kind: "retry", allowed: 2, inMs: 0 });
  });

  test("an old refusal no longer speaks", () => {
    const claims = [last("busy", { retryable: true, retry_ms: 500 })];
    expect(buyState(facts({ claims, now: 70_000 })).kind).toBe("open");
  });
});

describe("while something waits for its payment", () => {
  const unpaid = (pay_by: number) => {
    const record = told("confirmed");
    return {
      ...record,
      answer: { claim_id: record.claim_id, status: "confirmed", pay_by },
    } as const;
  };

  test("the button is for paying, and counts down", () => {
    expect(buyState(facts({ claims: [unpaid(60_000)] }))).toEqual({ kind: "pay", inMs: 10_000 });
  });

  test.each<[string, Partial<BuyFacts>, string]>([
    ["the sale is over", { now: 100_000, claims: [unpaid(110_000)] }, "pay"],
    ["the payment is late", { claims: [unpaid(50_000)] }, "open"],
    ["further units are wanted", { more: true, claims: [unpaid(60_000)] }, "open"],
    ["the connection is down", { linkLive: false, claims: [unpaid(60_000)] }, "pay"],
    ["another claim is on its way", { claims: [unpaid(60_000), claim()] }, "waiting"],
  ])("but when %s it says %s", (_, part, kind) => {
    expect(buyState(facts(part)).kind).toBe(kind);
  });

  test("the earliest deadline comes first", () => {
    expect(nextToPay([unpaid(70_000), unpaid(60_000)], 50_000)?.pay_by).toBe(60_000);
  });
});

test("units are counted as the server accepted them", () => {
  const claims = [told("confirmed", 2), told("held"), told("released_by_incident"), claim()];
  expect(unitsTaken(claims)).toBe(3);
  expect(unitsHeld(claims)).toBe(1);
  expect(unitsBought(claims)).toBe(2);
});

test.each<ClaimPhase>(["refused", "unknown"])("a hold that is %s now is no success", (phase) => {
  const claims = [{ ...told("held"), phase }];
  expect([unitsBought(claims), unitsHeld(claims)]).toEqual([0, 0]);
});

test("no claim is for more units than the protocol carries", () => {
  expect(unitsAllowed(sale({ limit_per_buyer: 500 }), [])).toBe(99);
  expect(unitsAllowed(sale({ limit_per_buyer: 3 }), [told("held", 2)])).toBe(1);
});

describe("a press", () => {
  const open = buyState(facts());

  test("buys what is on offer", () => {
    expect(pressed(open, facts(), 2)).toBe("buy");
  });

  test("on a button that was painted before the last press does nothing", () => {
    expect(pressed(open, facts({ claims: [claim()] }), 1)).toBeNull();
    expect(pressed(open, facts({ claims: [told("confirmed")] }), 2)).toBeNull();
  });

  test("does not do what the button has only begun to say", () => {
    const signIn = facts({ signedIn: false });
    expect(pressed(open, signIn, 1)).toBeNull();
    expect(pressed(buyState(signIn), signIn, 1)).toBe("sign_in");
    expect(pressed(buyState(signIn), facts(), 1)).toBeNull();
  });

  test.each([told("confirmed"), claim({ phase: "refused", refusal: refusal("price_changed") })])(
    "within a second of the answer is the second tap of a double tap",
    (record) => {
      const claims = [{ ...record, settled_at: 50_000 }];
      const early = facts({ claims, now: 50_900 });
      const painted = buyState(early);
      expect(painted).toMatchObject({ inMs: 100 });
      expect(canPress(painted)).toBe(false);
      expect(pressed(painted, early, 1)).toBeNull();
      expect(pressed(painted, facts({ claims, now: 51_000 }), 1)).toBe("buy");
    },
  );
});
