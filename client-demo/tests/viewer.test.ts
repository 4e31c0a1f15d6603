/** The pure parts of the viewer page: what is announced, kept, let fly, and how a video plays. */

import { describe, expect, test } from "vitest";
import type { ChatEntry } from "../src/live";
import { stockNews } from "../src/viewer/announce";
import { freeLane, laneCount } from "../src/viewer/danmaku";
import { OwnTaps } from "../src/viewer/hearts";
import { wayOf } from "../src/viewer/playback";
import { DEFAULT_PREFS, parsePrefs } from "../src/viewer/prefs";
import { withoutRepeated } from "../src/viewer/said-again";

describe("stock is announced", () => {
  test.each<[number, number, number | null]>([
    [51, 50, 50],
    [60, 51, null],
    [50, 49, null],
    [11, 10, 10],
    [60, 9, 9],
    [1, 0, 0],
    [60, 0, 0],
    [0, 0, null],
    [9, 40, null],
  ])("from %i to %i: %s", (before, after, said) => {
    expect(stockNews(null, before, after)).toBe(said);
  });

  test("once for each stop, however many are sold after it", () => {
    const said: (number | null)[] = [null];
    for (let left = 60; left > 8; left -= 1) {
      said.push(stockNews(said.at(-1) ?? null, left, left - 1));
    }
    expect([...new Set(said)]).toEqual([null, 50, 10]);
  });

  test("no longer once there are more again", () => {
    expect(stockNews(0, 0, 20)).toBeNull();
    expect(stockNews(10, 8, 10)).toBe(10);
    expect(stockNews(10, 10, 11)).toBeNull();
  });
});

describe("hearts for own taps", () => {
  test("do not rise again when the room's total has them", () => {
    const taps = new OwnTaps();
    taps.sent(2, 0);
    taps.sent(1, 200);
    expect(taps.others(2, 300)).toBe(0);
    expect(taps.others(5, 400)).toBe(4);
  });

  test("of taps that never arrived hold back nobody's for long", () => {
    const taps = new OwnTaps();
    taps.sent(30, 0);
    expect(taps.others(7, 6_000)).toBe(7);
  });
});

describe("an own line that was not delivered", () => {
  const line = (key: string, text: string, own: ChatEntry["own"]): ChatEntry => ({
    key,
    line: { id: key, user: "u", name: "", role: "viewer", text },
    own,
  });
  const keys = (chat: ChatEntry[]) => withoutRepeated(chat).map(({ key }) => key);

  test("leaves the list once it is said again", () => {
    const lost = line("own:1", "冲", "unsent");
    expect(keys([lost, line("a", "冲", null)])).toEqual(["own:1", "a"]);
    expect(keys([lost, line("own:2", "冲", "sending")])).toEqual(["own:2"]);
    expect(keys([lost, line("own:2", "冲", "unsent")])).toEqual(["own:2"]);
    expect(keys([line("b", "冲", "shown"), lost])).toEqual(["b", "own:1"]);
  });
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
