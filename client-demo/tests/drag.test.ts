import { expect, test } from "vitest";
import { aside, moved, placeAt, rebased, scrollFor } from "../src/host/drag";

test("a moved row stands where it was dropped, the others keep their order", () => {
  expect(moved([1, 2, 3, 4], 0, 2)).toEqual([2, 3, 1, 4]);
  expect(moved([1, 2, 3, 4], 3, 0)).toEqual([4, 1, 2, 3]);
  expect(moved([1, 2, 3, 4], 1, 1)).toEqual([1, 2, 3, 4]);
  expect(moved([1], 0, 0)).toEqual([1]);
});

test("a row hangs over the place whose middle it has passed", () => {
  const middles = [50, 150, 250];
  expect(placeAt(middles, 0, 50)).toBe(0);
  expect(placeAt(middles, 0, 149)).toBe(0);
  expect(placeAt(middles, 0, 151)).toBe(1);
  expect(placeAt(middles, 0, 999)).toBe(2);
  expect(placeAt(middles, 2, -10)).toBe(0);
});

test("rows between make room by one, the others stay", () => {
  const shifts = (from: number, to: number) => [0, 1, 2, 3].map((at) => aside(at, from, to));
  expect(shifts(0, 2)).toEqual([0, -1, -1, 0]);
  expect(shifts(3, 1)).toEqual([0, 1, 1, 0]);
  expect(shifts(1, 1)).toEqual([0, 0, 0, 0]);
});

test("the page scrolls only near its edges", () => {
  expect(scrollFor(10, 800)).toBeLessThan(0);
  expect(scrollFor(400, 800)).toBe(0);
  expect(scrollFor(790, 800)).toBeGreaterThan(0);
});

test("an order for an older list keeps what came since, and drops what went", () => {
  expect(rebased([3, 1, 2], [1, 2, 3])).toEqual([3, 1, 2]);
  expect(rebased([3, 1, 2], [1, 4, 3])).toEqual([3, 1, 4]);
});
