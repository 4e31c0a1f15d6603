/** The pure parts of the viewer page: what is announced, kept, let fly, and how a video plays. */

import { describe, expect, test } from "vitest";
import { chatNews, stockNews } from "../src/viewer/announce";
import { freeLane, laneCount } from "../src/viewer/danmaku";
import { wayOf } from "../src/viewer/playback";
import { DEFAULT_PREFS, parsePrefs } from "../src/viewer/prefs";

describe("stock is announced", () => {
  test.each<[number, number, number | null]>([
    [51, 50, 50],
    [60, 51, null],
    [50, 49, null],
    [11, 10, 10],
    [60, 9, 10],
    [1, 0, 0],
    [60, 0, 0],
    [0, 0, null],
    [9, 40, null],
  ])("from %i to %i: %s", (before, after, stop) => {
    expect(stockNews(before, after)).toBe(stop);
  });
});

test("of many chat lines the newest three are read and the rest is counted", () => {
  const lines = ["1", "2", "3", "4", "5"].map((text) => ({
    id: text,
    user: "u",
    name: "",
    role: "viewer",
    text,
  }));
  expect(chatNews(lines)).toEqual({ lines: lines.slice(2), more: 2 });
  expect(chatNews(lines.slice(0, 1))).toEqual({ lines: lines.slice(0, 1), more: 0 });
});

describe("danmaku settings", () => {
  test.each([null, "", "no json", "null", "[]", "7", '{"density":"huge","opacity":"x"}'])(
    "stored as %s are the default ones",
    (text) => {
      expect(parsePrefs(text)).toEqual(DEFAULT_PREFS);
    },
  );

  test("come back as they were stored, within their bounds", () => {
    const stored = { shown: false, opacity: 5, density: "half" };
    expect(parsePrefs(JSON.stringify(stored))).toEqual({ ...stored, opacity: 30 });
  });
});

describe("danmaku lanes", () => {
  test("the first free one is taken, none when all are busy", () => {
    expect(freeLane([], 3, 0)).toBe(0);
    expect(freeLane([100, 50, 100], 3, 60)).toBe(1);
    expect(freeLane([100, 100], 3, 60)).toBe(2);
    expect(freeLane([100, 100, 100], 3, 60)).toBe(-1);
  });

  test("are as many as the density asks for, and never none", () => {
    expect([laneCount(340, "full"), laneCount(340, "half"), laneCount(340, "quarter")]).toEqual([
      10, 5, 2,
    ]);
    expect(laneCount(0, "quarter")).toBe(1);
  });
});

describe("a video plays", () => {
  const none = { nativeHls: false, mediaSource: false };
  test.each<[string, object, string]>([
    ["https://cdn.example/a.mp4", {}, "src"],
    ["https://cdn.example/a.m3u8", { nativeHls: true, mediaSource: true }, "src"],
    ["https://cdn.example/a.m3u8", { mediaSource: true }, "hls"],
    ["https://cdn.example/A.M3U8?sign=1", { mediaSource: true }, "hls"],
    ["https://cdn.example/a.m3u8", {}, "none"],
  ])("%s with %o by %s", (url, abilities, way) => {
    expect(wayOf(url, { ...none, ...abilities })).toBe(way);
  });
});
