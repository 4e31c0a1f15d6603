import { afterEach, expect, test } from "vitest";
import { equationText, problemText, verdictText } from "../src/host/audit-badge";
import { type Audited, BELIEVED_MS, equationOf, verdictOf } from "../src/host/equation";
import type { Audit } from "../src/host/number-types";
import type { PoolBalance } from "../src/host/types";
import { lang } from "../src/i18n";
import { ApiError } from "../src/ui/api";

afterEach(() => {
  lang.value = "zh";
});

const pool = (part: Partial<PoolBalance> = {}): PoolBalance => ({
  ...{ pool: 7, initial: 100, restocked: 0, lowered: 0, available: 37, backlog: 0, reserved: 3 },
  ...{ sold: 60, dead: 0, pending_give: 0, difference: 0 },
  ...part,
});

const audit = (part: Partial<Audit> = {}): Audit => ({
  ...{ at: 1, ok: true, found: 0, pools: [pool()], problems: [] },
  ...part,
});

const verdict = (part: Partial<Audited>) =>
  verdictOf({ started: [7], reading: null, error: null, now: 0, ...part });

const NO_ANSWER = new ApiError(0, "network_error", "", "");

test("the equation names where every unit is", () => {
  expect(equationText(equationOf([pool()]))).toBe("100 = 37 在售 + 3 待付 + 60 已售");
  lang.value = "en";
  expect(equationText(equationOf([pool()]))).toBe("100 = 37 on sale + 3 held + 60 sold");
});

test("rare places are named when there is something in them", () => {
  const lowered = pool({ initial: 110, lowered: 10, reserved: 0, backlog: 2, dead: 1 });
  expect(equationText(equationOf([lowered]))).toBe(
    "100 = 37 在售 + 0 待付 + 60 已售 + 2 入账中 + 1 搁置",
  );
});

test("pools are counted together", () => {
  const { total, terms } = equationOf([
    pool(),
    pool({ initial: 5, available: 5, reserved: 0, sold: 0 }),
  ]);
  expect(total).toBe(105);
  expect(terms.map(({ units }) => units)).toEqual([42, 3, 60]);
  expect(terms.reduce((all, { units }) => all + units, 0)).toBe(total);
});

test("a fault is named in the page's language, an unknown one by its name", () => {
  const problem = { kind: "viewers", detail: "pool 7", pool: 7, order_id: 0 };
  const bad = audit({ ok: false, found: 2, problems: [problem] });
  const said = verdictText(verdict({ reading: { value: bad, at: 0 } }));
  expect(said).toBe("2 处不符 · 观众看到的库存不对");
  expect(problemText({ ...problem, kind: "made_up" })).toBe("made_up");
});

test("before the first audit it is awaited, unless it failed", () => {
  expect(verdict({}).kind).toBe("waiting");
  expect(verdict({ error: NO_ANSWER }).kind).toBe("failed");
});

test.each([null, NO_ANSWER])("an audit is believed by its own age", (error) => {
  const made = audit({ at: 1_000 });
  const believed = 1_000 + BELIEVED_MS;
  const at = (now: number) => verdict({ reading: { value: made, at: now }, error, now }).kind;
  expect(at(believed)).toBe("ok");
  expect(at(believed + 1)).toBe("stale");
});

test("a fault once found stays red, however old", () => {
  const reading = { value: audit({ ok: false, found: 1 }), at: 0 };
  expect(verdict({ reading, error: NO_ANSWER, now: 999_000 }).kind).toBe("bad");
});

test("without stock there is nothing to be proud of", () => {
  expect(verdict({ started: [] }).kind).toBe("empty");
});

test("an audit that lacks a started sale is awaited anew", () => {
  const reading = { value: audit(), at: 0 };
  expect(verdict({ reading, started: [7] }).kind).toBe("ok");
  expect(verdict({ reading, started: [7, 8] }).kind).toBe("waiting");
});
