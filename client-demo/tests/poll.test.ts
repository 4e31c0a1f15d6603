import { effect, signal } from "@preact/signals";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type Pace, Poll } from "../src/host/poll";
import { ApiError } from "../src/ui/api";

const EVERY_MS = 1_000;

function setUp(answers: (number | ApiError)[] = []) {
  const isVisible = signal(true);
  const pace = signal<Pace>("again");
  let asked = 0;
  const read = async () => {
    const answer = answers[asked] ?? asked;
    asked += 1;
    if (answer instanceof ApiError) throw answer;
    return answer;
  };
  const poll = new Poll({ read, everyMs: EVERY_MS, isVisible, pace, now: () => Date.now() });
  const look = () => effect(() => void poll.reading.value);
  return { poll, isVisible, pace, look, asked: () => asked };
}

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);
const BUSY = new ApiError(1, "busy", "忙", "busy");

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test("it asks while somebody looks, and not otherwise", async () => {
  const { look, asked } = setUp();
  await pass(5_000);
  expect(asked()).toBe(0);
  const lookAway = look();
  await pass(0);
  expect(asked()).toBe(1);
  await pass(3 * EVERY_MS);
  expect(asked()).toBe(4);
  lookAway();
  await pass(60_000);
  expect(asked()).toBe(4);
});

test("a hidden page asks nothing, and asks at once when it is seen again", async () => {
  const { look, isVisible, asked } = setUp();
  isVisible.value = false;
  look();
  await pass(60_000);
  expect(asked()).toBe(0);
  isVisible.value = true;
  await pass(0);
  expect(asked()).toBe(1);
});

test("when the show ends it is read once more", async () => {
  const { look, pace, asked } = setUp();
  look();
  await pass(0);
  pace.value = "once";
  await pass(60_000);
  expect(asked()).toBe(2);
});

test("before there is something to read it asks nothing", async () => {
  const { look, pace, asked } = setUp();
  pace.value = "never";
  look();
  await pass(60_000);
  expect(asked()).toBe(0);
});

test("a failure keeps the old value and its age, and is asked for more rarely", async () => {
  const { poll, look, asked } = setUp([7, BUSY, BUSY]);
  look();
  await pass(0);
  const first = poll.reading.value;
  await pass(EVERY_MS);
  expect(poll.error.value).toBe(BUSY);
  expect(poll.reading.value).toEqual(first);
  await pass(2 * EVERY_MS);
  expect(asked()).toBe(3);
  await pass(4 * EVERY_MS - 1);
  expect(asked()).toBe(3);
  await pass(1);
  expect(asked()).toBe(4);
  expect(poll.error.value).toBeNull();
});

test("one request at a time, and one that is asked for is not lost", async () => {
  let finish = () => {};
  let asked = 0;
  const read = () => {
    asked += 1;
    return new Promise<number>((resolve) => {
      finish = () => resolve(asked);
    });
  };
  const isVisible = signal(true);
  const pace = signal<Pace>("once");
  const poll = new Poll({ read, everyMs: EVERY_MS, isVisible, pace, now: () => 0 });
  effect(() => void poll.reading.value);
  await pass(0);
  const again = poll.ask();
  await pass(0);
  expect(asked).toBe(1);
  finish();
  await pass(0);
  expect(asked).toBe(2);
  finish();
  await again;
  expect(poll.reading.value?.value).toBe(2);
});
