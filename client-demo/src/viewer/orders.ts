/** Orders of the signed-in viewer, as PostgreSQL has them. */

import { call, type Order } from "../ui/api";

/** The newest 100, newest first. Throws ApiError. */
export async function myOrders(show: string, token: string): Promise<Order[]> {
  const path = `/api/shows/${encodeURIComponent(show)}/my-orders`;
  return (await call<{ orders: Order[] }>("GET", path, { token })).orders;
}
