/**
 * What a page knows of a room: a pure function of the state before and one input.
 *
 * Guarantees kept here (PROTOCOL.md, lanes): a state value is replaced only by a newer
 * (epoch, version); host events are applied once and in order, a hole in their numbers is flagged
 * (`hole`) and never shown as if nothing were missing; an own chat line is always accounted for.
 */

import type { ClaimRecord } from "./claims";
import { SIGN_IN_OVER } from "./errors";
import { RECENT_CHAT_MAX } from "./limits";
import type {
  Accepted,
  Bye,
  ChatLine,
  HelloResult,
  LiveEvent,
  RefusedReply,
  SaleState,
  ServerMessage,
  StateMap,
  StateValues,
  StockState,
  Tick,
  Welcome,
} from "./messages";

/**
 * The connection, as honest as it can be told to people. What the page shows is as old as
 * `heardAt`, the server time in ms of the last frame (0: there was none); `retryAt` is local
 * (Date.now(); 0: no new connection is planned yet).
 */
export type Link =
  | { state: "connecting" }
  | { state: "live" }
  | { state: "catching_up"; heardAt: number }
  | { state: "offline"; retryAt: number; heardAt: number }
  | { state: "over"; code: number; name: string };

/**
 * What became of a line this viewer wrote: `sent`, the server took it; `shown`, the room got it;
 * `folded`, the room got so many that it was left out (it may still come with a later tick).
 */
export type OwnLine =
  | "sending"
  | "sent"
  | "shown"
  | "folded"
  | "unsent"
  | { refusal: RefusedReply };

export interface ChatEntry {
  /** The line's id, or `own:<ref>` while it has none. */
  key: string;
  line: ChatLine;
  own: OwnLine | null;
}

/** A host event, or the mark of events this page missed for good. */
export type HostEntry = LiveEvent | { k: "gap"; seq: number };

type SingleKey = Exclude<keyof StateValues, "sale" | "stock">;

export interface RoomValues extends Partial<Pick<StateValues, SingleKey>> {
  sales: Readonly<Record<number, SaleState>>;
  stocks: Readonly<Record<number, StockState>>;
}

export interface LiveState {
  link: Link;
  show: string;
  /** Resume point: number of the newest host event applied. epoch 0: none yet. */
  epoch: number;
  seq: number;
  tickMs: number;
  values: RoomValues;
  chat: readonly ChatEntry[];
  /** Danmaku the server left out so far. */
  folded: number;
  host: readonly HostEntry[];
  hole: boolean;
  me: HelloResult | null;
  signInRefusal: RefusedReply | null;
  claims: readonly ClaimRecord[];
  bye: Bye | null;
}

/** Inputs that do not come from the server. */
export type LocalInput =
  | { t: "link"; link: Link }
  | { t: "chat_sent"; ref: number; text: string }
  | { t: "cut_off" }
  | { t: "hello_refused"; refusal: RefusedReply }
  | { t: "claims"; claims: readonly ClaimRecord[] };

export type Input = ServerMessage | LocalInput;

const CHAT_KEPT = 200;
const HOST_KEPT = 100;

export const EMPTY: LiveState = {
  link: { state: "connecting" },
  show: "",
  epoch: 0,
  seq: 0,
  tickMs: 100,
  values: { sales: {}, stocks: {} },
  chat: [],
  folded: 0,
  host: [],
  hole: false,
  me: null,
  signInRefusal: null,
  claims: [],
  bye: null,
};

export function reduce(state: LiveState, input: Input): LiveState {
  switch (input.t) {
    case "welcome":
      return welcomed(state, input);
    case "tick":
      return ticked(state, input);
    case "accepted":
      return accepted(state, input);
    case "refused":
      return refusedOwn(state, input);
    case "order":
      return state; // The claim book turns it into `claims`.
    case "bye":
      return { ...state, bye: input };
    case "link":
      return { ...state, link: input.link };
    case "chat_sent":
      return { ...state, chat: withOwn(state, input.ref, input.text) };
    case "cut_off":
      return { ...state, chat: state.chat.map(unsentIfWaiting) };
    case "hello_refused":
      return helloRefused(state, input.refusal);
    case "claims":
      return { ...state, claims: input.claims };
  }
}

// --- state values ------------------------------------------------------------------------------

interface Versioned {
  epoch: number;
  version: number;
}

export function isNewer(next: Versioned, before: Versioned | undefined): boolean {
  if (before === undefined) return true;
  if (next.epoch !== before.epoch) return next.epoch > before.epoch;
  return next.version > before.version;
}

const SINGLE_KEYS: ReadonlySet<string> = new Set<SingleKey>([
  "show",
  "pin",
  "runlist",
  "likes",
  "online",
  "room",
]);

/** `values` with every newer value of `changes`; keys of a later protocol are ignored. */
export function mergeValues(values: RoomValues, changes: StateMap): RoomValues {
  let merged = values;
  for (const [key, value] of Object.entries(changes)) merged = withValue(merged, key, value);
  return merged;
}

function withValue(values: RoomValues, key: string, value: StateMap[string]): RoomValues {
  const [kind = "", id = ""] = key.split(":");
  if (kind === "sale") return withNumbered(values, "sales", Number(id), value as SaleState);
  if (kind === "stock") return withNumbered(values, "stocks", Number(id), value as StockState);
  if (!SINGLE_KEYS.has(kind)) return values;
  return isNewer(value, values[kind as SingleKey]) ? { ...values, [kind]: value } : values;
}

function withNumbered(
  values: RoomValues,
  group: "sales" | "stocks",
  id: number,
  value: SaleState | StockState,
): RoomValues {
  if (!isNewer(value, values[group][id])) return values;
  return { ...values, [group]: { ...values[group], [id]: value } };
}

/** The snapshot decides which keys exist; where the page has a newer value, that one stays. */
function snapshotValues(before: RoomValues, snapshot: StateMap): RoomValues {
  const fresh = mergeValues({ sales: {}, stocks: {} }, snapshot);
  const kept: StateMap = {};
  for (const key of Object.keys(snapshot)) {
    const old = valueAt(before, key);
    if (old) kept[key] = old;
  }
  return mergeValues(fresh, kept);
}

function valueAt(values: RoomValues, key: string): StateMap[string] | undefined {
  const [kind = "", id = ""] = key.split(":");
  if (kind === "sale") return values.sales[Number(id)];
  if (kind === "stock") return values.stocks[Number(id)];
  return values[kind as SingleKey];
}

// --- frames ------------------------------------------------------------------------------------

function welcomed(state: LiveState, message: Welcome): LiveState {
  const known = state.epoch !== 0;
  const base: LiveState = {
    ...state,
    link: { state: "live" },
    bye: null,
    show: message.show,
    tickMs: message.tick_ms,
    values: snapshotValues(state.values, message.state),
    chat: snapshotChat(state.chat, message.chat),
    hole: false,
  };
  if (known && message.recovered) {
    const whole = { ...base, chat: continuedChat(state.chat, message.chat) };
    const caught = withEvents(whole, message.events ?? [], message.epoch);
    if (!caught.hole && caught.seq >= message.seq) return caught;
  }
  const missed = known && (message.epoch !== state.epoch || message.seq > state.seq);
  const host = missed ? keepHost([...state.host, { k: "gap", seq: message.seq }]) : state.host;
  return { ...base, host, epoch: message.epoch, seq: message.seq };
}

function ticked(state: LiveState, message: Tick): LiveState {
  let next = state;
  if (message.state) next = { ...next, values: mergeValues(next.values, message.state) };
  if (message.chat || message.folded) next = talked(next, message.chat ?? [], message.folded ?? 0);
  if (message.events?.length) next = withEvents(next, message.events, message.epoch ?? 0);
  return next;
}

// --- host events -------------------------------------------------------------------------------

/** Events of `epoch` beyond the resume point, in order; a hole stops and is flagged. */
function withEvents(state: LiveState, events: readonly LiveEvent[], epoch: number): LiveState {
  let next = epoch === state.epoch ? state : { ...state, hole: true };
  for (const event of events) {
    if (next.hole) break;
    if (event.seq <= next.seq) continue;
    const inOrder = event.seq === next.seq + 1;
    next = inOrder ? applied({ ...next, seq: event.seq }, event) : { ...next, hole: true };
  }
  return next;
}

function applied(state: LiveState, event: LiveEvent): LiveState {
  const host = keepHost([...state.host, event]);
  switch (event.k) {
    case "user_removed":
      return { ...state, host, chat: state.chat.filter(({ line }) => line.user !== event.user) };
    case "line_removed":
      return { ...state, host, chat: state.chat.filter(({ key }) => key !== event.line) };
    default:
      return { ...state, host }; // Also an event of a later protocol: its number counts.
  }
}

function keepHost(entries: HostEntry[]): HostEntry[] {
  return entries.slice(-HOST_KEPT);
}

// --- chat --------------------------------------------------------------------------------------

/** A tick's lines, and how many it left out: an accepted own line that is not there was folded. */
function talked(state: LiveState, lines: readonly ChatLine[], folded: number): LiveState {
  const settled = folded > 0 ? state.chat.map(foldedIfSent) : state.chat;
  return { ...state, chat: withLines(settled, lines), folded: state.folded + folded };
}

function withLines(entries: readonly ChatEntry[], lines: readonly ChatLine[]): ChatEntry[] {
  return [...shownAmong(entries, lines), ...freshLines(entries, lines)].slice(-CHAT_KEPT);
}

/** `lines` that are not among `entries` yet. */
function freshLines(entries: readonly ChatEntry[], lines: readonly ChatLine[]): ChatEntry[] {
  const known = new Set(entries.map((entry) => entry.key));
  return lines.filter((line) => !known.has(line.id)).map(entryOf);
}

function entryOf(line: ChatLine): ChatEntry {
  return { key: line.id, line, own: null };
}

/** `entries`, own ones that the room got in `lines` marked so. */
function shownAmong(entries: readonly ChatEntry[], lines: readonly ChatLine[]): ChatEntry[] {
  const told = new Set(lines.map((line) => line.id));
  return entries.map((entry) =>
    entry.own && told.has(entry.key) ? { ...entry, own: "shown" } : entry,
  );
}

function foldedIfSent(entry: ChatEntry): ChatEntry {
  return entry.own === "sent" ? { ...entry, own: "folded" } : entry;
}

/**
 * After a pause without its events only the snapshot knows which lines still stand: others may have
 * been removed. Own lines without an id stay visible.
 */
function snapshotChat(entries: readonly ChatEntry[], lines: readonly ChatLine[]): ChatEntry[] {
  const told = new Set(lines.map((line) => line.id));
  return continuedChat(
    entries.filter((entry) => isUnnumbered(entry) || told.has(entry.key)),
    lines,
  );
}

/** The snapshot's lines are the newest; own lines without an id come last. */
function continuedChat(entries: readonly ChatEntry[], lines: readonly ChatLine[]): ChatEntry[] {
  const fresh = freshLines(entries, lines.slice(-RECENT_CHAT_MAX));
  const settled = shownAmong(entries, lines);
  const others = settled.filter((entry) => !isUnnumbered(entry));
  return [...others, ...fresh, ...settled.filter(isUnnumbered)].slice(-CHAT_KEPT);
}

function isUnnumbered(entry: ChatEntry): boolean {
  return entry.key.startsWith("own:");
}

function withOwn(state: LiveState, ref: number, text: string): ChatEntry[] {
  const { user, name, role } = state.me ?? { user: "", name: "", role: "viewer" };
  const line = { id: "", user, name, role, text };
  const entry: ChatEntry = { key: `own:${ref}`, line, own: "sending" };
  return [...state.chat, entry].slice(-CHAT_KEPT);
}

function unsentIfWaiting(entry: ChatEntry): ChatEntry {
  return entry.own === "sending" ? { ...entry, own: "unsent" } : entry;
}

// --- own replies -------------------------------------------------------------------------------

/** A passing reason takes nobody's sign-in away. */
function helloRefused(state: LiveState, refusal: RefusedReply): LiveState {
  const me = SIGN_IN_OVER.has(refusal.name) ? null : state.me;
  return { ...state, me, signInRefusal: refusal };
}

function accepted(state: LiveState, reply: Accepted): LiveState {
  if (reply.hello) return { ...state, me: reply.hello, signInRefusal: null };
  if (!reply.chat) return state;
  const { id, text } = reply.chat;
  const key = `own:${reply.ref}`;
  // The sampled copy may have come with a tick before the reply: one entry per line.
  const others = state.chat.filter((entry) => entry.key !== id);
  const own = others.length < state.chat.length ? "shown" : "sent";
  const chat = others.map((entry): ChatEntry => {
    if (entry.key !== key) return entry;
    return { key: id, line: { ...entry.line, id, text }, own };
  });
  return { ...state, chat };
}

function refusedOwn(state: LiveState, refusal: RefusedReply): LiveState {
  const key = `own:${refusal.ref}`;
  const chat = state.chat.map((entry) =>
    entry.key === key ? { ...entry, own: { refusal } } : entry,
  );
  return { ...state, chat };
}
