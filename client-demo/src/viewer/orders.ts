/** Orders of the signed-in viewer, as PostgreSQL has them, and what the buyer can do with them. */

import { call, type Order } from "../ui/api";

interface Payment {
  pay_url: string;
}

function path(show: string, rest = ""): string {
  return `/api/shows/${encodeURIComponent(show)}/my-orders${rest}`;
}

/** The newest 100, newest first. Throws ApiError. */
export async function myOrders(show: string, token: string): Promise<Order[]> {
  return (await call<{ orders: Order[] }>("GET", path(show), { token })).orders;
}

/** Give an unpaid order back. Throws ApiError. */
export async function cancelOrder(show: string, token: string, order: number): Promise<void> {
  await call("POST", path(show, `/${order}/cancel`), { token });
}

/**
 * Open the provider's pay page in a tab of its own, so that the show goes on. To be called from a
 * click: a tab opened later is a pop-up that browsers block. Throws ApiError.
 */
export async function payOrder(show: string, token: string, order: number): Promise<void> {
  const tab = window.open("", "_blank");
  try {
    const { pay_url } = await call<Payment>("POST", path(show, `/${order}/payment`), { token });
    if (tab) tab.location.href = pay_url;
    else location.href = pay_url;
  } catch (error) {
    tab?.close();
    throw error;
  }
}
