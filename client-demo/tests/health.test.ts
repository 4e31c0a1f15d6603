import { expect, test } from "vitest";
import { gradeOf, healthOf, worst } from "../src/host/health-facts";
import type { Pulse, Readiness } from "../src/host/number-types";
import { ApiError } from "../src/ui/api";

const NOW = 1_000_000;

const pulse = (part: Partial<Pulse> = {}): Pulse => ({
  ...{ at: NOW, online: 1, likes: 0, lines: 0, claims: 0 },
  ...{ backlog: 0, oldest_ms: 0, pending: 0, gate: "open", ...part },
});

const heard = <T>(value: T, at = NOW) => ({ reading: { value, at }, error: null });
const UP: Readiness = { ready: true, parts: { redis: "ok", postgresql: "ok" } };
const NOTHING = { reading: null, error: null };
const NO_ANSWER = new ApiError(0, "network_error", "", "");

const known = {
  link: { state: "live" } as const,
  pulse: heard(pulse()),
  readiness: heard(UP),
  now: NOW,
};

const factOf = (name: string, part: object) =>
  healthOf({ ...known, ...part }).find((fact) => fact.name === name);

test("when everything works everything is said to", () => {
  const facts = healthOf(known);
  expect(facts.map(({ name }) => name)).toEqual(["frame", "backlog", "pending", "parts"]);
  expect(worst(facts)).toBe("ok");
});

test.each([
  [0, "ok"],
  [1_999, "ok"],
  [2_000, "warn"],
  [9_999, "warn"],
  [10_000, "bad"],
])("%d ms are %s", (ms, grade) => {
  expect(gradeOf(ms)).toBe(grade);
});

test("a picture that stands still tells since when", () => {
  const link = { state: "catching_up", heardAt: NOW - 3_000 };
  expect(factOf("frame", { link })).toEqual({ name: "frame", grade: "warn", ms: 3_000 });
  const offline = { state: "offline", retryAt: 0, heardAt: NOW - 1_000 };
  expect(factOf("frame", { link: offline })?.grade).toBe("bad");
});

test("a picture that never came is no picture", () => {
  const link = { state: "catching_up", heardAt: 0 };
  expect(factOf("frame", { link })).toEqual({ name: "frame", grade: "bad" });
});

test("orders that wait to be booked count by their age", () => {
  const at = (oldest_ms: number) => heard(pulse({ backlog: 4, oldest_ms }));
  expect(factOf("backlog", { pulse: at(500) })).toMatchObject({ grade: "ok", n: 4 });
  expect(factOf("backlog", { pulse: at(12_000) })?.grade).toBe("bad");
  const none = heard(pulse({ oldest_ms: 99_000 }));
  expect(factOf("backlog", { pulse: none })?.grade).toBe("ok");
});

test("numbers nobody renews are a fault of their own", () => {
  expect(factOf("numbers", { now: NOW + 9_999 })).toBeUndefined();
  expect(factOf("numbers", { now: NOW + 10_000 })).toMatchObject({ grade: "bad", ms: 10_000 });
});

test("numbers that never came are a fault once asking failed", () => {
  expect(factOf("numbers", { pulse: NOTHING })).toBeUndefined();
  const pulse = { ...NOTHING, error: NO_ANSWER };
  expect(factOf("numbers", { pulse })).toEqual({ name: "numbers", grade: "bad" });
  expect(factOf("numbers", { pulse: null })).toBeUndefined();
});

test("a show whose stock is reconciled is not healthy", () => {
  expect(factOf("gate", {})).toBeUndefined();
  expect(factOf("gate", { pulse: heard(pulse({ gate: "rebuilding" })) })?.grade).toBe("bad");
});

test("services that stopped answering are not up", () => {
  const lost = (at: number) => ({ readiness: { ...heard(UP, at), error: NO_ANSWER } });
  expect(factOf("parts", lost(NOW - 9_999))?.grade).toBe("ok");
  expect(factOf("parts", lost(NOW - 10_000))).toEqual({ name: "parts", grade: "bad" });
  const never = { readiness: { ...NOTHING, error: NO_ANSWER } };
  expect(factOf("parts", never)).toEqual({ name: "parts", grade: "bad" });
  expect(factOf("parts", { readiness: NOTHING })).toBeUndefined();
});

test("a part that fails is named", () => {
  const readiness = heard({ ready: false, parts: { redis: "failed", postgresql: "ok" } });
  expect(factOf("parts", { readiness })).toMatchObject({ grade: "bad", failed: ["redis"] });
});

test("the worst of all counts", () => {
  const late = heard(pulse({ pending: 1 }));
  expect(worst(healthOf({ ...known, pulse: late }))).toBe("warn");
  expect(worst([])).toBe("ok");
});
