import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { UNDO_S, UndoQueue } from "../src/host/undo";
import { ApiError } from "../src/ui/api";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const sent = () => vi.fn(async () => {});
const left = (undo: UndoQueue) => undo.acts.value.map((act) => act.left);

test("a large act is sent when its time is over, and not before", async () => {
  const undo = new UndoQueue();
  const send = sent();
  const done = undo.run({ act: "stop" }, 1, "stop", send);
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
  const done = undo.hold("ban u", "ban", send);
  undo.undo(undo.acts.value[0]?.id ?? 0);
  await vi.advanceTimersByTimeAsync(2_000 * UNDO_S);
  expect(send).not.toHaveBeenCalled();
  expect(await done).toBe(false);
});

test("what is sent at once is sent once", async () => {
  const undo = new UndoQueue();
  const send = sent();
  const done = undo.hold("end", "end", send);
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
  void undo.hold("stop 1", "first", sent());
  await vi.advanceTimersByTimeAsync(2_000);
  void undo.hold("stop 2", "second", sent());
  expect(left(undo)).toEqual([UNDO_S - 2, UNDO_S]);
});

test("however many wait, none is sent before its time", () => {
  const undo = new UndoQueue();
  const sends = Array.from({ length: 9 }, sent);
  for (const [n, send] of sends.entries()) void undo.hold(`ban ${n}`, `${n}`, send);
  for (const send of sends) expect(send).not.toHaveBeenCalled();
  expect(undo.acts.value).toHaveLength(9);
});

test("the same act again waits with the first and is sent once", async () => {
  const undo = new UndoQueue();
  const [first, second] = [sent(), sent()];
  const done = undo.hold("stop 1", "stop", first);
  expect(undo.hold("stop 1", "stop", second)).toBe(done);
  await vi.advanceTimersByTimeAsync(1_000 * UNDO_S);
  expect(await done).toBe(true);
  expect(first).toHaveBeenCalledOnce();
  expect(second).not.toHaveBeenCalled();
});

test("another word about the same target takes the place of the first", async () => {
  const undo = new UndoQueue();
  const [first, second] = [sent(), sent()];
  const done = undo.hold("price 1", "to 9.9", first);
  void undo.hold("price 1", "to 99", second);
  expect(await done).toBe(false);
  expect(undo.acts.value.map((act) => act.what)).toEqual(["to 99"]);
  await vi.advanceTimersByTimeAsync(1_000 * UNDO_S);
  expect(first).not.toHaveBeenCalled();
  expect(second).toHaveBeenCalledOnce();
});

test("timers that were late change nothing about the time", async () => {
  const undo = new UndoQueue();
  const send = sent();
  void undo.hold("stop 1", "stop", send);
  const now = performance.now();
  const late = vi.spyOn(performance, "now").mockReturnValue(now + 1_000 * UNDO_S);
  undo.look();
  late.mockRestore();
  expect(send).toHaveBeenCalledOnce();
  expect(undo.acts.value).toEqual([]);
});

test("time stands still while somebody attends to the acts, and goes on where it was", async () => {
  const undo = new UndoQueue();
  const send = sent();
  void undo.hold("stop 1", "stop", send);
  await vi.advanceTimersByTimeAsync(2_600);
  undo.pause(true);
  undo.pause(true);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(left(undo)).toEqual([3]);
  expect(undo.paused.value).toBe(true);
  expect(send).not.toHaveBeenCalled();
  undo.pause(false);
  await vi.advanceTimersByTimeAsync(2_390);
  expect(send).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(260);
  expect(send).toHaveBeenCalledOnce();
});

test("an act that comes while time stands still has its whole time before it", async () => {
  const undo = new UndoQueue();
  undo.pause(true);
  await vi.advanceTimersByTimeAsync(10_000);
  const send = sent();
  void undo.hold("stop 1", "stop", send);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(left(undo)).toEqual([UNDO_S]);
  undo.pause(false);
  await vi.advanceTimersByTimeAsync(1_000 * UNDO_S - 300);
  expect(send).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(600);
  expect(send).toHaveBeenCalledOnce();
});

test("while time stands still an act can be taken back and sent at once", async () => {
  const undo = new UndoQueue();
  const [first, second] = [sent(), sent()];
  void undo.hold("stop 1", "first", first);
  void undo.hold("stop 2", "second", second);
  undo.pause(true);
  undo.undo(1);
  undo.sendNow(2);
  undo.pause(false);
  await vi.advanceTimersByTimeAsync(2_000 * UNDO_S);
  expect([first.mock.calls.length, second.mock.calls.length]).toEqual([0, 1]);
});

test("a small act goes at once, and a failure reaches who asked and stays", async () => {
  const undo = new UndoQueue();
  const send = sent();
  await undo.run({ act: "restock", units: 1, total: 100 }, 1, "restock", send);
  expect(send).toHaveBeenCalledOnce();
  const error = new ApiError(1305, "sale_closed", "已结束", "Closed");
  const failed = undo.hold("stop 1", "stop", () => Promise.reject(error));
  const seen = expect(failed).rejects.toBe(error);
  await vi.advanceTimersByTimeAsync(1_000 * UNDO_S);
  await seen;
  expect(undo.failed.value).toEqual([{ id: 1, what: "stop", error }]);
  undo.dismiss(1);
  expect(undo.failed.value).toEqual([]);
});
