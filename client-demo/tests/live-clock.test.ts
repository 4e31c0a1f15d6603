import { describe, expect, test } from "vitest";
import { EMPTY, type LiveState } from "../src/live";
import { showOf, untilNextStep } from "../src/ui/live";
import { sale } from "./samples";

function selling(opens_at: number, closes_at: number): LiveState {
  return { ...EMPTY, values: { sales: { 7: sale({ opens_at, closes_at }) }, stocks: {} } };
}

describe("the page's clock", () => {
  const state = selling(60_000, 120_000);

  test("moves once a second, at full seconds of server time", () => {
    expect(untilNextStep(40_250, state)).toBe(750);
    expect(untilNextStep(41_000, state)).toBe(1_000);
    expect(untilNextStep(90_900, state)).toBe(100);
  });

  test.each([50_050, 59_950, 60_950, 110_050, 119_950])(
    "moves at full tenths at %d, when the sale opens or closes",
    (now) => {
      expect(untilNextStep(now, state)).toBe(50);
    },
  );

  test("is calm a second after the turn, and without sales", () => {
    expect(untilNextStep(61_000, state)).toBe(1_000);
    expect(untilNextStep(60_500, EMPTY)).toBe(500);
  });
});

test.each([
  ["/watch/demo", "demo"],
  ["/watch/%E7%A7%80", "秀"],
  ["/watch/%", "%"],
  ["/watch", ""],
])("of the path %s the show is %s", (path, show) => {
  expect(showOf(path)).toBe(show);
});
