import { afterEach, expect, test } from "vitest";
import { lang, t } from "../src/i18n";
import { en } from "../src/i18n/en";
import { zh } from "../src/i18n/zh";
import { money, parseMoney, plainMoney, span } from "../src/ui/format";

afterEach(() => {
  lang.value = "zh";
});

const placeholders = (text: string) => [...text.matchAll(/\{(\w+)\}/g)].map((m) => m[1]).sort();

test("both languages have the same keys", () => {
  expect(Object.keys(en).sort()).toEqual(Object.keys(zh).sort());
});

test.each(Object.keys(zh) as (keyof typeof zh)[])("%s has the same parts in both", (key) => {
  expect(en[key].trim()).not.toBe("");
  expect(zh[key].trim()).not.toBe("");
  expect(placeholders(en[key])).toEqual(placeholders(zh[key]));
});

test("parts are filled in the chosen language", () => {
  expect(t("online", { n: 3 })).toBe("3 人在看");
  lang.value = "en";
  expect(t("online", { n: 3 })).toBe("3 watching");
});

test("money shows minor units with the currency's own digits", () => {
  expect(money(9900, "CNY")).toBe("¥99.00");
  expect(money(500, "JPY")).toContain("500");
  expect(money(5, "???")).toBe("5");
});

test.each([
  ["99", "CNY", 9900],
  ["99.5", "CNY", 9950],
  ["0.07", "CNY", 7],
  ["500", "JPY", 500],
])("%s %s is %d minor units", (text, currency, minor) => {
  expect(parseMoney(text, currency)).toBe(minor);
  expect(parseMoney(plainMoney(minor, currency), currency)).toBe(minor);
});

test.each(["", "-1", "1.234", "1e3", "1,5", "九"])("%j is no amount", (text) => {
  expect(parseMoney(text, "CNY")).toBeNaN();
});

test("countdowns round up, so that 0:00 means now", () => {
  expect(span(0)).toBe("0:00");
  expect(span(1)).toBe("0:01");
  expect(span(61_000)).toBe("1:01");
  expect(span(3_661_000)).toBe("1:01:01");
});
