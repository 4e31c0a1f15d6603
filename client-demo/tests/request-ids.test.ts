import { expect, test } from "vitest";
import { RequestIds } from "../src/host/request-ids";
import { ApiError } from "../src/ui/api";

const NO_ANSWER = 0;
const CONFLICT = 1005;
const OUTCOME_UNKNOWN = 1401;

function setUp() {
  const ids = new RequestIds();
  const ask = async (fields: string, failure = -1) => {
    let asked = "";
    const answer = ids.once("sale 1 restock", fields, async (id) => {
      asked = id;
      if (failure >= 0) throw new ApiError(failure, "", "", "");
    });
    await answer.catch(() => {});
    return asked;
  };
  return ask;
}

test("after an unknown outcome the same fields have the same id until they are answered", async () => {
  const ask = setUp();
  const first = await ask("10", NO_ANSWER);
  expect(await ask("10", OUTCOME_UNKNOWN)).toBe(first);
  expect(await ask("10")).toBe(first);
  expect(await ask("10")).not.toBe(first);
});

test("other fields are another request", async () => {
  const ask = setUp();
  const first = await ask("10", NO_ANSWER);
  expect(await ask("50")).not.toBe(first);
  expect(await ask("10")).not.toBe(first);
});

test("what was refused begins anew", async () => {
  const ask = setUp();
  const first = await ask("10", CONFLICT);
  expect(await ask("10")).not.toBe(first);
});
