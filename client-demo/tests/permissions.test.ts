import { expect, test } from "vitest";
import { accessOf, may } from "../src/host/permissions";

function tokenOf(claims: object): string {
  const payload = Buffer.from(JSON.stringify(claims)).toString("base64url");
  return `eyJhbGciOiJIUzI1NiJ9.${payload}.c2lnbmF0dXJl`;
}

const HOST = { role: "host", show: "*" };
const HOST_OF_ONE = { role: "host", show: "demo" };
const MODERATOR = { role: "moderator", show: "demo" };

test("a token tells its role and show, whatever else is in it", () => {
  const claims = { sub: "ming", name: "小明~?>", ...MODERATOR, exp: 1 };
  expect(accessOf(tokenOf(claims))).toEqual(MODERATOR);
});

test.each(["", "x", "a.b.c", "a.%%.c", tokenOf({ sub: "x" })])("%j gives no rights", (token) => {
  expect(may(accessOf(token), "get_show")).toBe(false);
});

test("hosts act in the shop, moderators in the room", () => {
  for (const operation of ["stop_sale", "end_show", "stats", "see_money", "audit"] as const) {
    expect(may(HOST_OF_ONE, operation)).toBe(true);
    expect(may(MODERATOR, operation)).toBe(false);
  }
  for (const operation of ["ban", "set_chat_policy", "pin", "pulse"] as const) {
    expect(may(HOST_OF_ONE, operation)).toBe(true);
    expect(may(MODERATOR, operation)).toBe(true);
  }
  expect(may({ role: "viewer", show: "demo" }, "ban")).toBe(false);
});

test("only a token for every show makes shows", () => {
  expect([HOST, HOST_OF_ONE, MODERATOR].map((access) => may(access, "create_show"))).toEqual([
    true,
    false,
    false,
  ]);
});
