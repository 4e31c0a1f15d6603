import { describe, expect, test } from "vitest";
import {
  again,
  answered,
  ClaimBook,
  claimCommand,
  cutOff,
  isAged,
  isUndecided,
  mayRepeat,
  newClaim,
  refused,
} from "../src/live/claims";
import type { ClaimState, ClaimStatus } from "../src/live/messages";
import { claim, MemoryStorage, refusal } from "./samples";

const WISH = { sale: 7, quantity: 1, price: 9900, price_version: 1 };
const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

function told(status: ClaimStatus): ClaimState {
  return { claim_id: claim().claim_id, status };
}

describe("a claim id", () => {
  test("is a lower-case UUIDv7 and never repeats", () => {
    const ids = Array.from({ length: 1_000 }, () => newClaim(WISH, 0).claim_id);
    expect(ids.every((id) => UUID_V7.test(id))).toBe(true);
    expect(new Set(ids).size).toBe(1_000);
    expect([...ids].sort()).toEqual(ids);
  });

  test("goes out again unchanged, with the next attempt", () => {
    const first = newClaim(WISH, 0);
    const { attempt: _, ref: __, ...fields } = claimCommand(first, 1);
    const second = claimCommand(again(first), 2);
    expect(second).toMatchObject(fields);
    expect(second.attempt).toBe(1);
  });
});

describe("the proof of a hold", () => {
  const PROOF = { receipt: "9f2c", epoch: 3, seq: 42, price: 9900 };
  const held = answered(claim(), { ...told("held"), ...PROOF });

  test("goes out with the claim when the server does not know the hold any more", () => {
    const lost = answered(held, told("not_seen"));
    expect(claimCommand(again(lost), 1)).toMatchObject({ attempt: 1, proof: PROOF });
  });

  test("is not there before the claim was held, nor after it was confirmed", () => {
    expect(claimCommand(claim(), 1)).not.toHaveProperty("proof");
    const confirmed = answered(held, told("confirmed"));
    expect(claimCommand(confirmed, 1)).not.toHaveProperty("proof");
  });

  test("survives a reload", () => {
    const storage = new MemoryStorage();
    new ClaimBook(storage, "demo", "u-1").put(answered(held, told("not_seen")));
    const [record] = new ClaimBook(storage, "demo", "u-1").list();
    expect(record && claimCommand(record, 1).proof).toEqual(PROOF);
  });
});

describe("a refusal", () => {
  test.each(["sold_out", "busy", "price_changed", "rate_limited"])(
    "%s decides the first sending",
    (name) => {
      expect(refused(claim(), refusal(name)).phase).toBe("refused");
    },
  );

  test("outcome_unknown decides nothing, even at the first sending", () => {
    expect(refused(claim(), refusal("outcome_unknown")).phase).toBe("unknown");
  });

  test.each(["busy", "rate_limited", "stock_rebuilding", "internal", "token_expired"])(
    "%s says nothing about an earlier sending",
    (name) => {
      expect(refused(claim({ attempt: 1 }), refusal(name)).phase).toBe("unknown");
    },
  );

  test.each([
    "sold_out",
    "out_of_stock",
    "sale_not_open",
    "sale_closed",
    "show_not_live",
    "show_paused",
    "show_ended",
    "limit_reached",
    "price_changed",
    "unknown_sale",
  ])("%s of a repeat comes from the script and decides about every sending", (name) => {
    expect(refused(claim({ attempt: 2 }), refusal(name)).phase).toBe("refused");
  });

  test("never takes back an answer", () => {
    const held = answered(claim(), told("held"));
    expect(refused(held, refusal("sold_out"))).toBe(held);
  });
});

describe("an answer", () => {
  test("moves forward only", () => {
    const confirmed = answered(claim(), told("confirmed"));
    expect(answered(confirmed, told("held")).answer?.status).toBe("confirmed");
    expect(answered(confirmed, told("paid")).answer?.status).toBe("paid");
  });

  test("overrides a refusal: the server is right about what it accepted", () => {
    const wrong = refused(claim(), refusal("sold_out"));
    expect(answered(wrong, told("confirmed")).phase).toBe("answered");
  });

  test("not_seen is never final", () => {
    expect(answered(answered(claim(), told("held")), told("not_seen")).phase).toBe("unknown");
  });

  test("not_seen says nothing about an order", () => {
    const confirmed = answered(claim(), told("confirmed"));
    expect(answered(confirmed, told("not_seen"))).toBe(confirmed);
  });

  test("a cut connection leaves an unanswered claim unknown and an answered one alone", () => {
    expect(cutOff(claim()).phase).toBe("unknown");
    const held = answered(claim(), told("held"));
    expect(cutOff(held)).toBe(held);
  });
});

describe("a claim without an answer", () => {
  const MINUTE = 60_000;
  const open = claim({ phase: "unknown", made_at: 0 });

  test("may go out again for ten minutes", () => {
    expect(mayRepeat(open, 10 * MINUTE)).toBe(true);
    expect(mayRepeat(open, 11 * MINUTE)).toBe(false);
    expect(isAged(open, 11 * MINUTE)).toBe(true);
  });

  test("is not aged when it was held: the buyer was told", () => {
    const lost = answered(answered(open, told("held")), told("not_seen"));
    expect(mayRepeat(lost, 11 * MINUTE)).toBe(true);
  });

  test("goes out under no number twice", () => {
    expect(mayRepeat({ ...open, attempt: 999 }, 0)).toBe(true);
    expect(mayRepeat({ ...open, attempt: 1_000 }, 0)).toBe(false);
  });
});

describe("the claim book", () => {
  test("finds undecided claims again after a reload", () => {
    const storage = new MemoryStorage();
    new ClaimBook(storage, "demo", "u-1").put(claim());
    const [record] = new ClaimBook(storage, "demo", "u-1").list();
    expect(record).toEqual(claim());
    expect(record && isUndecided(record)).toBe(true);
  });

  test("keeps buyers and shows apart", () => {
    const storage = new MemoryStorage();
    new ClaimBook(storage, "demo", "u-1").put(claim());
    expect(new ClaimBook(storage, "demo", "u-2").list()).toEqual([]);
    expect(new ClaimBook(storage, "other", "u-1").list()).toEqual([]);
  });

  test("of two tabs do not overwrite each other's claims", () => {
    const storage = new MemoryStorage();
    const one = new ClaimBook(storage, "demo", "u-1");
    const two = new ClaimBook(storage, "demo", "u-1");
    one.put(newClaim(WISH, 1));
    two.put(newClaim(WISH, 2));
    expect(new ClaimBook(storage, "demo", "u-1").list()).toHaveLength(2);
  });

  test("of a tab whose sending was refused believes the tab that got an answer", () => {
    const storage = new MemoryStorage();
    const [one, two] = [1, 2].map(() => new ClaimBook(storage, "demo", "u-1"));
    one?.put(claim());
    const held = answered(claim({ attempt: 1 }), told("held"));
    two?.put(held);
    one?.put(refused(claim(), refusal("sold_out")));
    expect(one?.list()).toEqual([held]);
    expect(new ClaimBook(storage, "demo", "u-1").list()).toEqual([held]);
  });

  test("skips damaged entries", () => {
    const storage = new MemoryStorage();
    storage.setItem("livesale.claim.demo.u-1.x", "{");
    storage.setItem("livesale.claim.demo.u-1.y", '{"claim_id":3}');
    expect(new ClaimBook(storage, "demo", "u-1").list()).toEqual([]);
  });

  test("works in memory when storage refuses", () => {
    const storage = new MemoryStorage();
    storage.setItem = () => {
      throw new Error("quota");
    };
    const book = new ClaimBook(storage, "demo", "u-1");
    book.put(claim());
    expect(book.list()).toEqual([claim()]);
  });

  test("forgets decided claims after a day and undecided ones never", () => {
    const storage = new MemoryStorage();
    const book = new ClaimBook(storage, "demo", "u-1");
    const old = { ...newClaim(WISH, 0), phase: "refused" as const };
    const open = newClaim(WISH, 0);
    book.put(old);
    book.put(open);
    book.prune(25 * 3_600_000);
    expect(book.list()).toEqual([open]);
    expect(storage.length).toBe(1);
  });
});
