/** A video that the browser plays by itself: how it is asked for again, and how it rests. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type Picture, play } from "../src/viewer/playback";

const URL_OF_SHOW = "https://cdn.example/show/live.m3u8";

/** What `play` touches of a <video>. */
class FakeVideo extends EventTarget {
  muted = false;
  duration = Number.NaN;
  currentTime = 0;
  /** Every address that was loaded; "" where it was taken away. */
  readonly loaded: string[] = [];
  refusal: string | null = null;

  set src(url: string) {
    this.loaded.push(url);
  }

  canPlayType = () => "maybe";
  pause = () => {};
  load = () => {};
  removeAttribute = () => void this.loaded.push("");

  play(): Promise<void> {
    const refused = this.refusal !== null && !this.muted;
    return refused ? Promise.reject(new DOMException("", this.refusal ?? "")) : Promise.resolve();
  }

  tell(event: string): void {
    this.dispatchEvent(new Event(event));
  }
}

class FakePage extends EventTarget {
  hidden = false;

  hide(hidden: boolean): void {
    this.hidden = hidden;
    this.dispatchEvent(new Event("visibilitychange"));
  }
}

function watch(page: FakePage) {
  vi.stubGlobal("document", page);
  const video = new FakeVideo();
  const told: Picture[] = [];
  const stop = play(video as unknown as HTMLVideoElement, URL_OF_SHOW, (now) => told.push(now));
  return { video, told, stop };
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("window", {});
  vi.stubGlobal("location", { href: "https://shop.example/watch/demo" });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("a picture that breaks", () => {
  test("is asked for again, after twice the time each try, soon again once it played", () => {
    const { video, told } = watch(new FakePage());
    const tries = () => video.loaded.length;
    for (const [wait, before] of [
      [1_000, 1],
      [2_000, 2],
    ] as const) {
      video.tell("error");
      vi.advanceTimersByTime(wait - 1);
      expect(tries()).toBe(before);
      vi.advanceTimersByTime(1);
      expect(tries()).toBe(before + 1);
    }
    video.tell("playing");
    video.tell("error");
    vi.advanceTimersByTime(1_000);
    expect(tries()).toBe(4);
    expect(told).toEqual(["broken", "broken", "playing", "broken"]);
  });

  test("is not asked for again when the page has stopped it", () => {
    const { video, stop } = watch(new FakePage());
    video.tell("error");
    stop();
    vi.advanceTimersByTime(60_000);
    expect(video.loaded).toEqual([URL_OF_SHOW, ""]);
  });
});

describe("hidden for a minute", () => {
  test("nothing is loaded any more, until the page is seen again", () => {
    const page = new FakePage();
    const { video } = watch(page);
    page.hide(true);
    vi.advanceTimersByTime(59_999);
    page.hide(false);
    expect(video.loaded).toEqual([URL_OF_SHOW]);
    page.hide(true);
    video.tell("error");
    vi.advanceTimersByTime(500);
    vi.advanceTimersByTime(59_500);
    expect(video.loaded.at(-1)).toBe("");
    vi.advanceTimersByTime(600_000);
    expect(video.loaded.at(-1)).toBe("");
    page.hide(false);
    expect(video.loaded.at(-1)).toBe(URL_OF_SHOW);
  });

  test("a file goes on where it was, a live picture at its edge", () => {
    const page = new FakePage();
    const { video } = watch(page);
    for (const [duration, expected] of [
      [Number.POSITIVE_INFINITY, 0],
      [3_600, 700],
    ] as const) {
      Object.assign(video, { duration, currentTime: 700 });
      page.hide(true);
      vi.advanceTimersByTime(60_000);
      Object.assign(video, { duration: Number.NaN, currentTime: 0 });
      page.hide(false);
      expect(video.currentTime).toBe(expected);
    }
  });
});

test("where sound is not allowed any more, the picture goes on without", async () => {
  const page = new FakePage();
  const { video } = watch(page);
  video.muted = false;
  video.refusal = "NotAllowedError";
  page.hide(true);
  vi.advanceTimersByTime(60_000);
  page.hide(false);
  await vi.advanceTimersByTimeAsync(0);
  expect(video.muted).toBe(true);
});
