import { expect, test } from "vitest";
import { isQuestion, stoppedLines } from "../src/host/lane";
import type { ChatEntry } from "../src/live";

const entry = (key: string): ChatEntry => ({
  key,
  line: { id: key, user: "u", name: "", role: "viewer", text: key },
  own: null,
});

test("questions are known by their marks or words", () => {
  for (const text of ["is it blue?", "有蓝色吗", "多少钱", "包邮？"])
    expect(isQuestion(text)).toBe(true);
  expect(isQuestion("买了")).toBe(false);
});

test("a stopped list takes nothing new, and loses what was removed", () => {
  const stoppedAt = new Set(["a", "b"]);
  const now = [entry("b"), entry("c")];
  expect(stoppedLines(now, stoppedAt).map((line) => line.key)).toEqual(["b"]);
});
