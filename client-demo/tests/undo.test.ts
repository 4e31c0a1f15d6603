import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { HELD_BACK_MAX, UNDO_S, UndoQueue } from "../src/host/undo";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const sent = () => vi.fn(async () => {});
const left = (undo: UndoQueue) => undo.acts.value.map((act) => act.left);

test("a large act is sent when its time is over, and not before", async () => {
  const undo = new UndoQueue();
  const send = sent();
  const done = undo.run({ act: "stop" }, "stop", send);
  await vi.advanceTimersByTimeAsync(1_000 * UNDO_S - 1);
  expect(send).not.toHaveBeenCalled();
  expect(left(undo)).toEqual([1]);
  await vi.advanceTimersByTimeAsync(1);
  expect(send).toHaveBeenCalledOnce();
  expect(undo.acts.value).toEqual([]);
  expect(await done).toBe(true);
});

test("what is taken back is never sent", async () => {
  const undo = new UndoQueue();
  const send = sent();
  const done = undo.hold("ban", send);
  undo.undo(undo.acts.value[0]?.id ?? 0);
  await vi.advanceTimersByTimeAsync(2_000 * UNDO_S);
  expect(send).not.toHaveBeenCalled();
  expect(await done).toBe(false);
});

test("what is sent at once is sent once", async () => {
  const undo = new UndoQueue();
  const send = sent();
  const done = undo.hold("end", send);
  const id = undo.acts.value[0]?.id ?? 0;
  undo.sendNow(id);
  undo.sendNow(id);
  undo.undo(id);
  await vi.advanceTimersByTimeAsync(2_000 * UNDO_S);
  expect(send).toHaveBeenCalledOnce();
  expect(await done).toBe(true);
});

test("each act has its own time", async () => {
  const undo = new UndoQueue();
  void undo.hold("first", sent());
  await vi.advanceTimersByTimeAsync(2_000);
  void undo.hold("second", sent());
  expect(left(undo)).toEqual([UNDO_S - 2, UNDO_S]);
});

test("one more than fit sends the oldest at once", () => {
  const undo = new UndoQueue();
  const sends = Array.from({ length: HELD_BACK_MAX + 1 }, sent);
  for (const [n, send] of sends.entries()) void undo.hold(`${n}`, send);
  expect(sends.map((send) => send.mock.calls.length)).toEqual([1, 0, 0, 0]);
  expect(undo.acts.value.map((act) => act.what)).toEqual(["1", "2", "3"]);
});

test("a small act goes at once, and a failure reaches who asked", async () => {
  const undo = new UndoQueue();
  const send = sent();
  await undo.run({ act: "restock", units: 1, total: 100 }, "restock", send);
  expect(send).toHaveBeenCalledOnce();
  const failed = undo.hold("stop", () => Promise.reject(new Error("no")));
  const seen = expect(failed).rejects.toThrow("no");
  await vi.advanceTimersByTimeAsync(1_000 * UNDO_S);
  await seen;
});
