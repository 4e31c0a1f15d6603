import { expect, test } from "vitest";
import type { Pulse, Sample, Series } from "../src/host/number-types";
import {
  askFrom,
  currencies,
  curves,
  joined,
  newest,
  SAMPLES_MAX,
  stacked,
} from "../src/host/series";

const T = 1_700_000_000_000;

const sample = (s: number, part: Partial<Sample> = {}): Sample => {
  const totals = { online: 10, likes: 0, lines: 0, claims: 0, orders: 0 };
  return { at: T + 1_000 * s, ...totals, left: 5, held: 0, sold: 0, amounts: {}, ...part };
};

const pulse = (s: number, part: Partial<Pulse> = {}): Pulse => {
  const { at, online, likes, lines, claims } = sample(s);
  const store = { backlog: 0, oldest_ms: 0, pending: 0, gate: "open" };
  return { at, online, likes, lines, claims, ...store, ...part };
};

const series = (...samples: Sample[]): Series => ({ step_s: 5, samples });
const seconds = (at: readonly number[]) => at.map((one) => one - T / 1_000);

test("rates are what totals grew by, per second", () => {
  const shown = curves(series(sample(0), sample(5, { likes: 20, claims: 1 })), null, "CNY");
  expect(shown.likes).toEqual([null, 4]);
  expect(shown.claims).toEqual([null, 0.2]);
  expect(shown.online).toEqual([10, 10]);
});

test("a total that fell has no rate, and goes on from there", () => {
  const lost = [sample(0, { likes: 900 }), sample(5, { likes: 3 }), sample(10, { likes: 8 })];
  expect(curves(series(...lost), null, "CNY").likes).toEqual([null, null, 1]);
});

test("what was not sampled stays a hole in every curve", () => {
  const shown = curves(series(sample(0), sample(60, { likes: 600 })), null, "CNY");
  expect(seconds(shown.at)).toEqual([0, 5, 60]);
  expect(shown.online).toEqual([10, null, 10]);
  expect(shown.likes).toEqual([null, null, null]);
});

test("two missing samples are a hole, one late sample is none", () => {
  expect(curves(series(sample(0), sample(12)), null, "CNY").at).toHaveLength(2);
  expect(curves(series(sample(0), sample(13)), null, "CNY").at).toHaveLength(3);
});

test("a series that was thinned out has wider steps and no holes", () => {
  const thin = { step_s: 30, samples: [sample(0), sample(30), sample(60)] };
  expect(curves(thin, null, "CNY").at).toHaveLength(3);
});

test("the newest pulse ends the curves it knows", () => {
  const known = series(sample(0), sample(5, { likes: 5 }));
  const shown = curves(known, pulse(6, { likes: 6 }), "CNY");
  expect(shown.likes).toEqual([null, 1, 1]);
  expect(shown.left).toEqual([5, 5, null]);
  expect(shown.amount).toEqual([0, 0, null]);
  expect(newest(shown, "left")).toBe(5);
});

test("a pulse soon after the only sample has no rate yet", () => {
  expect(curves(series(sample(0)), pulse(2, { likes: 6 }), "CNY").likes).toEqual([null, null]);
});

test("a pulse long after the newest sample comes behind a hole", () => {
  const shown = curves(series(sample(0)), pulse(60), "CNY");
  expect(shown.online).toEqual([10, null, 10]);
  expect(newest(shown, "online")).toBe(10);
  expect(newest(shown, "left")).toBeNull();
});

test.each([0, -3])("a pulse %s s after the newest sample says nothing new", (s) => {
  expect(curves(series(sample(0)), pulse(s), "CNY").at).toHaveLength(1);
});

test("amounts are those of the currency", () => {
  const taken = sample(0, { amounts: { USD: 5, CNY: 900 } });
  expect(curves(series(taken), null, "USD").amount).toEqual([5]);
  expect(curves(series(taken), null, "JPY").amount).toEqual([0]);
  expect(currencies(taken.amounts)).toEqual(["CNY", "USD"]);
});

test("orders without amounts are those of a moderator, who is told no zero", () => {
  const kept = series(sample(0), sample(5, { orders: 2 }));
  expect(curves(kept, null, "CNY").amount).toEqual([0, null]);
});

test("a span of time keeps the rate at its first point", () => {
  const all = series(sample(0), sample(5, { likes: 5 }), sample(10, { likes: 15 }));
  const shown = curves(all, null, "CNY", T + 5_000);
  expect(seconds(shown.at)).toEqual([5, 10]);
  expect(shown.likes).toEqual([1, 2]);
});

test("samples are asked for after the newest, and all anew when there are too many", () => {
  expect(askFrom(undefined)).toBe(0);
  expect(askFrom(series(sample(0), sample(5)))).toBe(T + 5_000);
  const many = Array.from({ length: SAMPLES_MAX }, (_, i) => sample(5 * i));
  expect(askFrom(series(...many))).toBe(0);
});

test("what comes twice is kept once", () => {
  const known = series(sample(0), sample(5));
  expect(joined(known, series(sample(5), sample(10))).samples).toHaveLength(3);
  expect(joined(known, series()).samples).toBe(known.samples);
  expect(joined({ ...known, step_s: 60 }, series(sample(10))).step_s).toBe(60);
});

test("stacked columns carry those below them, and unknown stays unknown", () => {
  const columns = [
    [1, 1],
    [2, null],
    [3, 3],
  ];
  expect(stacked(columns)).toEqual([
    [6, null],
    [5, null],
    [3, 3],
  ]);
});
