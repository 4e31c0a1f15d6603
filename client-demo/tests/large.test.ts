import { expect, test } from "vitest";
import { isLarge, percent } from "../src/host/large";

const price = (from: number, to: number, list = 10_000) =>
  isLarge({ act: "price", from, to, list });

test("what cannot be undone is large", () => {
  for (const act of ["stop", "end", "ban"] as const) expect(isLarge({ act })).toBe(true);
});

test("a price is large from 30 % of the one before, either way", () => {
  expect(price(9_900, 6_931)).toBe(false);
  expect(price(9_900, 6_930)).toBe(true);
  expect(price(6_000, 7_799)).toBe(false);
  expect(price(6_000, 7_800)).toBe(true);
});

test("a price below half of the list price is large, unless it was that before", () => {
  expect(price(6_000, 5_000)).toBe(false);
  expect(price(6_000, 4_999)).toBe(true);
  expect(price(4_000, 4_000)).toBe(false);
});

test("units are large from 100, or from half of the total", () => {
  expect(isLarge({ act: "restock", units: 99, total: 1_000 })).toBe(false);
  expect(isLarge({ act: "restock", units: 100, total: 1_000 })).toBe(true);
  expect(isLarge({ act: "lower", units: 9, total: 20 })).toBe(false);
  expect(isLarge({ act: "lower", units: 10, total: 20 })).toBe(true);
});

test("opening a sale is large from 1,000 units, or far below the list price", () => {
  const open = (price: number, units: number) =>
    isLarge({ act: "open", price, list: 9_900, units });
  expect(open(4_900, 999)).toBe(false);
  expect(open(4_900, 1_000)).toBe(true);
  expect(open(2_970, 10)).toBe(false);
  expect(open(990, 10)).toBe(true);
});

test("percent is whole and has a sign, and nothing comes from nothing", () => {
  expect(percent(9_900, 990)).toBe("−90%");
  expect(percent(100, 133)).toBe("+33%");
  expect(percent(100, 100)).toBe("0%");
  expect(percent(0, 5)).toBe("");
});
