import { expect, test } from "vitest";
import { cuesOf, isSaid, markSaid, readAt, startReading, stepOf } from "../src/host/cues";

test("the same cue keeps its request, so that saying it twice is one commentary", () => {
  const first = startReading("r1");
  expect(readAt(first, 0, 3, "r2")).toBe(first);
  expect(readAt(first, -1, 3, "r2")).toBe(first);
});

test("another showing has another request", () => {
  const second = readAt(startReading("r1"), 1, 3, "r2");
  expect([second.place, second.request]).toEqual([1, "r2"]);
  expect(readAt(second, 0, 3, "r3").request).toBe("r3");
});

test("places stay within the cues", () => {
  const start = startReading("r1");
  expect(readAt(start, 99, 3, "r2").place).toBe(2);
  expect(readAt(start, 99, 0, "r2").place).toBe(0);
});

test("what was said stays marked when the reading goes on", () => {
  const first = startReading("r1");
  const said = markSaid(first, first, 1_000);
  expect(readAt(said, 1, 3, "r2").said.get(0)).toBe(1_000);
  expect(first.said.size).toBe(0);
});

test("a showing is said once; the next showing of the same cue may be said again", () => {
  const first = startReading("r1");
  const said = markSaid(first, first, 1_000);
  expect([isSaid(first), isSaid(said)]).toEqual([false, true]);
  const back = readAt(readAt(said, 1, 3, "r2"), 0, 3, "r3");
  expect([back.place, isSaid(back)]).toEqual([0, false]);
});

test("an answer that comes late marks the cue it is about", () => {
  const first = startReading("r1");
  const gone = readAt(first, 1, 3, "r2");
  const marked = markSaid(gone, first, 1_000);
  expect([...marked.said]).toEqual([[0, 1_000]]);
  expect(isSaid(marked)).toBe(false);
});

test("keys move by one, or to either end", () => {
  expect(["ArrowDown", "PageDown", "ArrowUp", "PageUp"].map((key) => stepOf(key, 5))).toEqual([
    1, 1, -1, -1,
  ]);
  expect(["Home", "End", "a"].map((key) => stepOf(key, 5))).toEqual([-5, 5, 0]);
});

test("cues are lines, without the empty ones", () => {
  expect(cuesOf("one\n\n  two  \n")).toEqual(["one", "two"]);
  expect(cuesOf(" \n ")).toEqual([]);
});
