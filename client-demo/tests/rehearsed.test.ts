import { expect, test } from "vitest";
import { CURVE, figuresOf, type Summary, stockCurve } from "../src/host/rehearsed";
import { zh } from "../src/i18n/zh";

const time = (p99: number, count = 5) => ({ all: { count, p50: 1, p99 } });

const SUMMARY: Summary = {
  counts: { held: 12, confirmed: 12, errors: 0, frames: 900 },
  measures: { claim_held: time(7.25), claim_confirmed: time(1234), stale: time(0, 0) },
  audit: { scope: "full", ok: true, findings: [] },
  honesty: { valid: true },
  series: [],
  live_room: null,
};

test("figures are those that were measured", () => {
  expect(figuresOf(SUMMARY)).toEqual([
    { label: "rehearsal.held", value: "12" },
    { label: "rehearsal.confirmed", value: "12" },
    { label: "rehearsal.errors", value: "0" },
    { label: "rehearsal.claim_held", value: "7.3 ms" },
    { label: "rehearsal.claim_confirmed", value: "1.2 s" },
  ]);
});

test("beside a real show its viewer is told of, before and during", () => {
  const live_room = { reply_before: 3, reply_during: 12_500 };
  const last = figuresOf({ ...SUMMARY, live_room }).at(-1);
  expect(last).toEqual({ label: "rehearsal.live_room", value: "3.0 ms → 13 s" });
});

test("every figure has a text", () => {
  for (const { label } of figuresOf(SUMMARY)) expect(zh[label]).toBeTruthy();
});

test("the stock falls from the top to the bottom", () => {
  const series = [10, 5, 0].map((left, t_s) => ({ t_s, values: { left } }));
  const unknown = { t_s: 9, values: { held: 1 } };
  const { width, height } = CURVE;
  const curve = stockCurve({ ...SUMMARY, series: [...series, unknown] });
  expect(curve).toBe(`0,0 ${width / 2},${height / 2} ${width},${height}`);
});

test("one point is no curve", () => {
  expect(stockCurve({ ...SUMMARY, series: [{ t_s: 0, values: { left: 3 } }] })).toBe("");
  expect(stockCurve(SUMMARY)).toBe("");
});
