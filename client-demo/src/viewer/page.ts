/** What the viewer page is about: its show, its session, who is signed in, which sheet is open. */

import { batch, computed, effect, signal } from "@preact/signals";
import type { SaleState } from "../live";
import { SIGN_IN_OVER } from "../live/errors";
import { call } from "../ui/api";
import { openLive, showOf } from "../ui/live";
import { keepToken, takeToken } from "../ui/token";
import { isOver } from "./buying";

export const showId = showOf(location.pathname);
const tokenKey = `livesale.token.${showId}`;

export const token = signal(takeToken(tokenKey));
export const live = openLive(showId, token.value);

export type SheetName = "goods" | "orders" | "sign_in" | "danmaku" | "buy";
export const sheet = signal<SheetName | null>(null);
/** The sale that the buy sheet is about. */
export const saleToBuy = signal(0);
/** Likes of this page so far: their hearts rise at once, before the room's total has them. */
export const ownLikes = signal(0);

export const state = live.state;
export const values = computed(() => state.value.values);
export const link = computed(() => state.value.link);
export const linkLive = computed(() => link.value.state === "live");
export const me = computed(() => state.value.me);

export function signInWith(newToken: string): void {
  keepToken(tokenKey, newToken);
  token.value = newToken;
  live.session.signIn(newToken);
}

// A token that the server refused for good is forgotten, so that a new one can be asked for.
const signInRefusal = computed(() => state.value.signInRefusal);
effect(() => {
  if (!SIGN_IN_OVER.has(signInRefusal.value?.name ?? "")) return;
  keepToken(tokenKey, "");
  token.value = "";
});

/** Leaving an identity needs a new connection: the server never changes the user of one. */
export function signOut(): void {
  keepToken(tokenKey, "");
  location.reload();
}

/** Demo mode only: a nickname becomes a viewer token. Throws ApiError. */
export async function signInAs(name: string): Promise<void> {
  const answer = await call<{ token: string }>("POST", "/api/demo/token", {
    body: { name, show: showId },
  });
  batch(() => {
    signInWith(answer.token);
    sheet.value = null;
  });
}

/** Sales still to come or running, the pinned product's first, then the earliest. */
export function runningSales(now: number): SaleState[] {
  const { sales, pin } = values.value;
  const pinned = (sale: SaleState) => (sale.product === pin?.product ? 0 : 1);
  return Object.values(sales)
    .filter((sale) => !isOver(sale, now))
    .sort((a, b) => pinned(a) - pinned(b) || a.opens_at - b.opens_at || a.sale - b.sale);
}

/** How long a finished sale stays on the page when nothing else is on. */
const SHOWN_AFTER_MS = 10 * 60_000;

/** The sale to put in front: a running one, else the one that ended last. */
export function frontSale(now: number): SaleState | undefined {
  const ended = Object.values(values.value.sales)
    .filter((sale) => sale.closes_at > 0 && now - sale.closes_at < SHOWN_AFTER_MS)
    .sort((a, b) => b.closes_at - a.closes_at);
  return runningSales(now)[0] ?? ended[0];
}

/** As a signal it changes with the sale, not with the time. */
export const front = computed(() => frontSale(live.now.value));

/** Open the buy sheet of `sale`. */
export function openBuy(sale: number): void {
  batch(() => {
    saleToBuy.value = sale;
    sheet.value = "buy";
  });
}

/** Like the show; people who are not signed in are asked to. */
export function like(): void {
  if (!me.value) {
    sheet.value = "sign_in";
    return;
  }
  live.session.like();
  ownLikes.value += 1;
}

/** Product and sku of a sale, as far as the run-list tells. */
export function itemOf(sale: SaleState) {
  const product = values.value.runlist?.products.find((item) => item.product === sale.product);
  const sku = product?.skus.find((item) => item.sku === sale.sku);
  return { product, sku };
}
