import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { ChatLine } from "../src/live";
import { CHAT_EVERY_MS, type ChatDigest, followChat } from "../src/ui/chat-digest";

const line = (text: string): ChatLine => ({ id: text, user: "u", name: "", role: "viewer", text });
const lines = ["1", "2", "3", "4", "5"].map(line);

const page = { hidden: false };
const said: ChatDigest[] = [];
let tell = (_: readonly ChatLine[]) => {};
let end = () => {};

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("document", page);
  page.hidden = false;
  said.length = 0;
  const onLines = (listener: typeof tell) => {
    tell = listener;
    return () => {
      tell = () => {};
      return true;
    };
  };
  end = followChat({ onLines }, (digest) => said.push(digest));
});

afterEach(() => {
  end();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

test("of many chat lines the newest three are read and the rest is counted", () => {
  for (let n = 0; n < 100; n++) tell(lines);
  vi.advanceTimersByTime(CHAT_EVERY_MS);
  tell(lines.slice(0, 1));
  vi.advanceTimersByTime(CHAT_EVERY_MS);
  expect(said).toEqual([
    { lines: lines.slice(2), more: 497 },
    { lines: lines.slice(0, 1), more: 0 },
  ]);
});

test("however fast the room talks, it is read out every five seconds", () => {
  for (let ms = 0; ms < 4 * CHAT_EVERY_MS; ms += 50) {
    tell(lines);
    vi.advanceTimersByTime(50);
  }
  expect(said).toHaveLength(4);
  for (const digest of said) expect(digest.lines).toHaveLength(3);
});

test("a silent room and a hidden page are not read out", () => {
  vi.advanceTimersByTime(2 * CHAT_EVERY_MS);
  page.hidden = true;
  tell(lines);
  vi.advanceTimersByTime(CHAT_EVERY_MS);
  expect(said).toEqual([]);
});
