/** What the buy button of a sale says and does: a pure decision over what the server told. */

import {
  type ClaimRecord,
  type ClaimState,
  isHeld,
  isUndecided,
  type SaleState,
  type StockState,
} from "../live";

export type BuyState =
  | { kind: "offline" | "show_scheduled" | "show_paused" | "show_ended" }
  | { kind: "scheduled" | "closed" | "sold_out" | "limit" | "sign_in" }
  | { kind: "waiting" | "checking" | "held" }
  | { kind: "not_open" | "pay"; inMs: number }
  | { kind: "busy"; inMs: number }
  | { kind: "price_changed" | "retry" | "open"; allowed: number };

export interface BuyFacts {
  linkLive: boolean;
  signedIn: boolean;
  showPhase: string;
  sale: SaleState;
  stock: StockState | undefined;
  /** This buyer's claims on this sale, oldest first. */
  claims: readonly ClaimRecord[];
  /** Whether the button is about further units although there is something to pay. */
  more: boolean;
  /** Server ms. */
  now: number;
}

/** How long a refusal still speaks for itself on the button. */
const REFUSAL_SHOWN_MS = 15_000;

const TAKEN: ReadonlySet<string> = new Set(["held", "confirmed", "paid", "fulfilled"]);

/** Units this buyer has, held ones included. */
export function unitsTaken(claims: readonly ClaimRecord[]): number {
  return claims.reduce((sum, { answer, quantity }) => {
    return answer && TAKEN.has(answer.status) ? sum + (answer.quantity ?? quantity) : sum;
  }, 0);
}

export function unitsHeld(claims: readonly ClaimRecord[]): number {
  return unitsTaken(claims.filter(isHeld));
}

/** Whether the sale is over for good, by the host's word or by server time. */
export function isOver(sale: SaleState, now: number): boolean {
  return sale.phase === "closed" || (sale.closes_at > 0 && now >= sale.closes_at);
}

export function buyState(facts: BuyFacts): BuyState {
  return ownProgress(facts) ?? toPay(facts) ?? notSelling(facts) ?? offer(facts);
}

/** The confirmed claim of `claims` that has to be paid first, while there is time at `now`. */
export function nextToPay(claims: readonly ClaimRecord[], now: number): ClaimState | undefined {
  return claims
    .map((record) => record.answer)
    .filter((answer): answer is ClaimState => answer?.status === "confirmed")
    .filter((answer) => (answer.pay_by ?? 0) > now)
    .sort((a, b) => (a.pay_by ?? 0) - (b.pay_by ?? 0))[0];
}

/** Units that wait for their payment come before further ones: they can be lost. */
function toPay({ linkLive, claims, more, now }: BuyFacts): BuyState | null {
  const unpaid = linkLive && !more ? nextToPay(claims, now) : undefined;
  return unpaid ? { kind: "pay", inMs: (unpaid.pay_by ?? 0) - now } : null;
}

/** A claim on its way counts more than anything the room says. */
function ownProgress({ claims }: BuyFacts): BuyState | null {
  const open = claims.find(isUndecided);
  if (open)
    return { kind: open.phase === "sending" && open.attempt === 0 ? "waiting" : "checking" };
  return claims.some(isHeld) ? { kind: "held" } : null;
}

function notSelling({ linkLive, showPhase, sale, stock, now }: BuyFacts): BuyState | null {
  if (isOver(sale, now)) return { kind: "closed" };
  if (showPhase === "ended") return { kind: "show_ended" };
  if (!linkLive) return { kind: "offline" };
  if (showPhase === "scheduled") return { kind: "show_scheduled" };
  if (showPhase === "paused") return { kind: "show_paused" };
  if (sale.opens_at === 0) return { kind: "scheduled" };
  if (now < sale.opens_at) return { kind: "not_open", inMs: sale.opens_at - now };
  if (stock && stock.left <= 0) return { kind: "sold_out" };
  return null;
}

function offer({ signedIn, sale, claims, now }: BuyFacts): BuyState {
  if (!signedIn) return { kind: "sign_in" };
  const allowed = sale.limit_per_buyer - unitsTaken(claims);
  if (allowed <= 0) return { kind: "limit" };
  return afterRefusal(claims, now, allowed) ?? { kind: "open", allowed };
}

function afterRefusal(
  claims: readonly ClaimRecord[],
  now: number,
  allowed: number,
): BuyState | null {
  const last = claims.at(-1);
  if (last?.phase !== "refused" || !last.refusal) return null;
  const age = now - last.made_at;
  if (age > REFUSAL_SHOWN_MS) return null;
  if (last.refusal.name === "limit_reached") return { kind: "limit" };
  if (last.refusal.name === "price_changed") return { kind: "price_changed", allowed };
  if (age < last.refusal.retry_ms) return { kind: "busy", inMs: last.refusal.retry_ms - age };
  return last.refusal.retryable ? { kind: "retry", allowed } : null;
}
