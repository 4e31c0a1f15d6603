import { expect, test } from "vitest";
import { Latest } from "../src/host/latest";

test("an answer that was overtaken is dropped, and a failure overtakes nothing", async () => {
  const latest = new Latest();
  const taken: string[] = [];
  let answerFirst = (_: string) => {};
  const first = latest.take(
    () => new Promise<string>((resolve) => (answerFirst = resolve)),
    (answer) => taken.push(answer),
  );
  const put = (answer: string) => taken.push(answer);
  await latest.take(async () => "second", put);
  await expect(latest.take(() => Promise.reject(new Error("no")), put)).rejects.toThrow("no");
  answerFirst("first");
  await first;
  await latest.take(async () => "last", put);
  expect(taken).toEqual(["second", "last"]);
});
