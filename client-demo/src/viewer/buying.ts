/** What the buy button of a sale says and does: a pure decision over what the server told. */

import {
  type ClaimRecord,
  type ClaimState,
  isHeld,
  isUndecided,
  type SaleState,
  type StockState,
} from "../live";
import { CLAIM_QUANTITY_MAX } from "../live/limits";

/** `inMs` of the last kinds: the button still rests so long after an answer. */
export type BuyState =
  | { kind: "offline" | "show_scheduled" | "show_paused" | "show_ended" }
  | { kind: "scheduled" | "closed" | "sold_out" | "limit" | "sign_in" }
  | { kind: "waiting" | "checking" | "held" }
  | { kind: "not_open" | "pay"; inMs: number }
  | { kind: "busy"; inMs: number }
  | { kind: "price_changed" | "retry" | "open"; allowed: number; inMs: number };

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

/** The second tap of a double tap was meant for the button as it was before the answer. */
const REST_MS = 1_000;

const BOUGHT: ReadonlySet<string> = new Set(["confirmed", "paid", "fulfilled"]);

function unitsOf(claims: readonly ClaimRecord[]): number {
  return claims.reduce((sum, { answer, quantity }) => sum + (answer?.quantity ?? quantity), 0);
}

/** Units of orders. */
export function unitsBought(claims: readonly ClaimRecord[]): number {
  return unitsOf(
    claims.filter(({ phase, answer }) => phase === "answered" && BOUGHT.has(answer?.status ?? "")),
  );
}

export function unitsHeld(claims: readonly ClaimRecord[]): number {
  return unitsOf(claims.filter(isHeld));
}

/** Units this buyer has, held ones included. */
export function unitsTaken(claims: readonly ClaimRecord[]): number {
  return unitsBought(claims) + unitsHeld(claims);
}

/** Units that one more claim may be for; none at the limit. */
export function unitsAllowed(sale: SaleState, claims: readonly ClaimRecord[]): number {
  return Math.min(sale.limit_per_buyer - unitsTaken(claims), CLAIM_QUANTITY_MAX);
}

/** Whether the sale is over for good, by the host's word or by server time. */
export function isOver(sale: SaleState, now: number): boolean {
  return sale.phase === "closed" || (sale.closes_at > 0 && now >= sale.closes_at);
}

export function buyState(facts: BuyFacts): BuyState {
  const { sale, claims } = facts;
  const decided = ownProgress(facts) ?? toPay(facts) ?? over(facts);
  if (decided) return decided;
  const allowed = unitsAllowed(sale, claims);
  if (allowed <= 0) return { kind: "limit" };
  return notSelling(facts) ?? offer(facts, allowed);
}

/** Whether the button does something. */
export function canPress(buy: BuyState): boolean {
  return "allowed" in buy ? buy.inMs === 0 : buy.kind === "sign_in" || buy.kind === "pay";
}

/**
 * What a press does: the button was painted as `painted`, which may be a frame old, and `facts` is
 * what the page knows by now. Both must offer the same, so that a second press buys nothing.
 */
export function pressed(
  painted: BuyState,
  facts: BuyFacts,
  quantity: number,
): "sign_in" | "pay" | "buy" | null {
  const now = buyState(facts);
  if (!canPress(now)) return null;
  if ("allowed" in now) return "allowed" in painted && quantity <= now.allowed ? "buy" : null;
  if (now.kind !== painted.kind) return null;
  return now.kind === "pay" ? "pay" : "sign_in";
}

/** The confirmed claim of `claims` that has to be paid first, while there is time at `now`. */
export function nextToPay(claims: readonly ClaimRecord[], now: number): ClaimState | undefined {
  return claims
    .filter((record) => record.phase === "answered")
    .map((record) => record.answer)
    .filter((answer): answer is ClaimState => answer?.status === "confirmed")
    .filter((answer) => (answer.pay_by ?? 0) > now)
    .sort((a, b) => (a.pay_by ?? 0) - (b.pay_by ?? 0))[0];
}

/**
 * Units that wait for their payment come before further ones: they can be lost. Also without a
 * connection: the deadline runs on, and paying needs none.
 */
function toPay({ claims, more, now }: BuyFacts): BuyState | null {
  const unpaid = more ? undefined : nextToPay(claims, now);
  return unpaid ? { kind: "pay", inMs: (unpaid.pay_by ?? 0) - now } : null;
}

/** A claim on its way counts more than anything the room says; it goes on after a sign-in. */
function ownProgress({ signedIn, claims }: BuyFacts): BuyState | null {
  const open = claims.find(isUndecided);
  if (open && !signedIn) return { kind: "sign_in" };
  if (open)
    return { kind: open.phase === "sending" && open.attempt === 0 ? "waiting" : "checking" };
  return claims.some(isHeld) ? { kind: "held" } : null;
}

function over({ showPhase, sale, now }: BuyFacts): BuyState | null {
  if (isOver(sale, now)) return { kind: "closed" };
  return showPhase === "ended" ? { kind: "show_ended" } : null;
}

function notSelling({ linkLive, showPhase, sale, stock, now }: BuyFacts): BuyState | null {
  if (!linkLive) return { kind: "offline" };
  if (showPhase === "scheduled") return { kind: "show_scheduled" };
  if (showPhase === "paused") return { kind: "show_paused" };
  if (sale.opens_at === 0) return { kind: "scheduled" };
  if (now < sale.opens_at) return { kind: "not_open", inMs: sale.opens_at - now };
  if (stock && stock.left <= 0) return { kind: "sold_out" };
  return null;
}

function offer({ signedIn, claims, now }: BuyFacts, allowed: number): BuyState {
  if (!signedIn) return { kind: "sign_in" };
  const offered = { allowed, inMs: restMs(claims, now) };
  return afterRefusal(claims, now, offered) ?? { kind: "open", ...offered };
}

/** A retry is what the buyer pressed for; further units, or another price, are not. */
function restMs(claims: readonly ClaimRecord[], now: number): number {
  const settledAt = claims
    .filter(({ phase, refusal }) => phase === "answered" || refusal?.name === "price_changed")
    .map((record) => record.settled_at ?? 0);
  return Math.max(0, Math.max(0, ...settledAt) + REST_MS - now);
}

function afterRefusal(
  claims: readonly ClaimRecord[],
  now: number,
  offered: { allowed: number; inMs: number },
): BuyState | null {
  const last = claims.at(-1);
  if (last?.phase !== "refused" || !last.refusal) return null;
  const age = now - (last.settled_at ?? last.made_at);
  if (age > REFUSAL_SHOWN_MS) return null;
  if (last.refusal.name === "limit_reached") return { kind: "limit" };
  if (last.refusal.name === "price_changed") return { kind: "price_changed", ...offered };
  if (age < last.refusal.retry_ms) return { kind: "busy", inMs: last.refusal.retry_ms - age };
  return last.refusal.retryable ? { kind: "retry", ...offered } : null;
}
