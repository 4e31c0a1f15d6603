/**
 * The wire protocol as types: the mirror of server/protocol/messages.py.
 *
 * Interfaces carry the names and fields of the Python Structs, in their order
 * (tests/unit/test_client_messages.py compares them). A field with `?` is left out by the server
 * when it has its default; the reducer reads those through `??`. All times are Redis ms.
 */

export const SUBPROTOCOL_MSGPACK = "livesale.v1.msgpack";
export const SUBPROTOCOL_JSON = "livesale.v1.json";

// --- Commands: client to server ---------------------------------------------------------------

/** Sign in, or refresh the token in-band. */
export interface Hello {
  t: "hello";
  token: string;
  ref?: number;
}

export interface Chat {
  t: "chat";
  text: string;
  ref?: number;
}

/** `taps` likes at once; without `ref` there is no reply. */
export interface Like {
  t: "like";
  taps?: number;
  ref?: number;
}

/**
 * `claim_id` is stored before sending; `attempt` counts the sendings of this id from 0. Once the
 * newest was refused, none of them is accepted any more.
 */
export interface Claim {
  t: "claim";
  ref: number;
  sale: number;
  claim_id: string;
  quantity: number;
  price_version: number;
  attempt?: number;
  proof?: Proof;
}

/** What an answer `held` said. */
export interface Proof {
  receipt: string;
  epoch: number;
  seq: number;
  price: number;
}

export interface OrderStatus {
  t: "order_status";
  ref: number;
  claim_id: string;
}

export interface Time {
  t: "time";
  ref: number;
  sent_at?: number;
}

export type Command = Hello | Chat | Like | Claim | OrderStatus | Time;

// --- Replies ----------------------------------------------------------------------------------

export type ClaimStatus =
  | "held"
  | "confirmed"
  | "paid"
  | "fulfilled"
  | "expired"
  | "cancelled"
  | "refunded"
  | "released_by_incident"
  | "not_seen";

/** Where a claim stands. Prices in minor units; `seq` is the place in the order of acceptance. */
export interface ClaimState {
  claim_id: string;
  status: ClaimStatus;
  sale?: number;
  quantity?: number;
  price?: number;
  price_version?: number;
  epoch?: number;
  seq?: number;
  order_id?: number;
  pay_by?: number;
  receipt?: string;
}

export interface HelloResult {
  user: string;
  name: string;
  role: string;
  expires_at: number;
}

export interface ChatResult {
  id: string;
  text: string;
}

export interface TimeResult {
  sent_at: number;
  now: number;
}

export interface Accepted {
  t: "accepted";
  ref: number;
  hello?: HelloResult;
  chat?: ChatResult;
  claim?: ClaimState;
  order?: ClaimState;
  time?: TimeResult;
}

/** Why a command was refused: a row of the server's one error table. */
export interface RefusedReply {
  t: "refused";
  ref: number | null;
  code: number;
  name: string;
  retryable: boolean;
  retry_ms: number;
  zh: string;
  en: string;
  field?: string;
  price?: number;
  price_version?: number;
}

// --- State: values where only the newest (epoch, version) matters ------------------------------

export interface ShowState {
  epoch: number;
  version: number;
  phase: string;
  title: string;
  cover_url: string;
  playback_url: string;
  starts_at: number;
}

/** The product being explained (讲解中); 0: none. */
export interface PinState {
  epoch: number;
  version: number;
  product: number;
}

export interface SkuView {
  sku: number;
  title: string;
  price: number;
  currency: string;
}

export interface ProductView {
  product: number;
  title: string;
  image_url: string;
  skus: SkuView[];
}

export interface RunListState {
  epoch: number;
  version: number;
  products: ProductView[];
}

export interface LikesState {
  epoch: number;
  version: number;
  total: number;
}

export interface OnlineState {
  epoch: number;
  version: number;
  people: number;
}

export interface RoomState {
  epoch: number;
  version: number;
  slow_mode_s: number;
}

/** Terms of a flash sale. It sells while opens_at <= Redis time < closes_at and phase is open. */
export interface SaleState {
  epoch: number;
  version: number;
  sale: number;
  sku: number;
  product: number;
  phase: string;
  price: number;
  list_price: number;
  currency: string;
  price_version: number;
  limit_per_buyer: number;
  opens_at: number;
  closes_at: number;
  pay_within_s: number;
}

/** left + held + sold == total, exactly, at every version. */
export interface StockState {
  epoch: number;
  version: number;
  sale: number;
  left: number;
  held: number;
  sold: number;
  total: number;
}

/** What `state` of welcome and tick holds under each key (`sale:<id>`, `stock:<id>`, ...). */
export interface StateValues {
  show: ShowState;
  pin: PinState;
  runlist: RunListState;
  likes: LikesState;
  online: OnlineState;
  room: RoomState;
  sale: SaleState;
  stock: StockState;
}

export type StateMap = Record<string, StateValues[keyof StateValues]>;

// --- Events that must not be missed ------------------------------------------------------------

export interface Commentary {
  k: "commentary";
  seq: number;
  at: number;
  text: string;
}

export interface Pinned {
  k: "pinned";
  seq: number;
  at: number;
  product: number;
}

export interface ShowPhaseChanged {
  k: "show_phase";
  seq: number;
  at: number;
  phase: string;
}

/** `what`: scheduled, opening, restocked, lowered, price_changed, sold_out, closed. */
export interface SalePhaseChanged {
  k: "sale_phase";
  seq: number;
  at: number;
  sale: number;
  what: string;
}

export interface UserRemoved {
  k: "user_removed";
  seq: number;
  at: number;
  user: string;
}

/** A moderator deleted the danmaku line with this id. */
export interface LineRemoved {
  k: "line_removed";
  seq: number;
  at: number;
  line: string;
}

export type LiveEvent =
  | Commentary
  | Pinned
  | ShowPhaseChanged
  | SalePhaseChanged
  | UserRemoved
  | LineRemoved;

export interface ChatLine {
  id: string;
  user: string;
  name: string;
  role: string;
  text: string;
}

// --- Frames from the server --------------------------------------------------------------------

export interface Welcome {
  t: "welcome";
  version: number;
  show: string;
  epoch: number;
  seq: number;
  now: number;
  tick_ms: number;
  recovered: boolean;
  state: StateMap;
  chat: ChatLine[];
  events?: LiveEvent[];
}

export interface Tick {
  t: "tick";
  n: number;
  now: number;
  state?: StateMap;
  epoch?: number;
  events?: LiveEvent[];
  chat?: ChatLine[];
  folded?: number;
}

/** The claim of this buyer moved on. */
export interface OrderEvent {
  t: "order";
  order: ClaimState;
}

export interface Bye {
  t: "bye";
  code: number;
  name: string;
  reconnect: boolean;
  retry_ms?: number;
}

export type ServerMessage = Welcome | Tick | Accepted | RefusedReply | OrderEvent | Bye;
