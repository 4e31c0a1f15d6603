/** Orders of the signed-in viewer, as PostgreSQL has them. */

import type { ClaimStatus } from "../live";
import { call } from "../ui/api";

export interface OrderLine {
  order_id: number;
  claim_id: string;
  sale_id: number;
  product: string;
  sku: string;
  quantity: number;
  /** Minor units, per unit. */
  price: number;
  currency: string;
  status: ClaimStatus;
  /** ms since 1970. */
  confirmed_at: number;
  /** ms since 1970; 0: nothing to pay. */
  pay_by: number;
}

/** Newest first. Throws ApiError. */
export function myOrders(show: string, token: string): Promise<OrderLine[]> {
  return call("GET", `/api/shows/${encodeURIComponent(show)}/my-orders`, { token });
}
