import { expect, test } from "vitest";
import { inPlace, refreshed, searchOf, unseen } from "../src/host/order-rows";
import type { Order } from "../src/ui/api";

const order = (order_id: number, status: Order["status"] = "confirmed"): Order => ({
  ...{ order_id, sale: 1, product: 1, product_title: "a", sku: 1, sku_title: "b", buyer: "c" },
  ...{ claim_id: "d", quantity: 1, price: 1, currency: "CNY", confirmed_at: 0, pay_by: 0, status },
});

const ids = (rows: readonly Order[]) => rows.map((row) => row.order_id);

test("a new page comes first, older rows stay behind it", () => {
  const rows = [order(4), order(3), order(2), order(1)];
  expect(ids(refreshed(rows, [order(5), order(4)], 2))).toEqual([5, 4, 3, 2, 1]);
});

test("a page that is not full is all there is", () => {
  expect(ids(refreshed([order(3), order(2)], [order(2)], 2))).toEqual([2]);
  expect(refreshed([order(3)], [], 2)).toEqual([]);
});

test("for somebody who reads only states change", () => {
  const rows = [order(2), order(1)];
  const page = [order(3), order(2, "paid")];
  expect(inPlace(rows, page)).toEqual([order(2, "paid"), order(1)]);
  expect(unseen(rows, page)).toBe(1);
  expect(unseen([], page)).toBe(2);
});

test.each([
  ["42", { order: "42", buyer: "" }],
  [" #42 ", { order: "42", buyer: "" }],
  ["0", { order: "", buyer: "0" }],
  ["小明", { order: "", buyer: "小明" }],
  ["u-42", { order: "", buyer: "u-42" }],
  ["12345678901234567890", { order: "", buyer: "12345678901234567890" }],
  ["", { order: "", buyer: "" }],
])("%j is searched for as %j", (text, search) => {
  expect(searchOf(text)).toEqual(search);
});
