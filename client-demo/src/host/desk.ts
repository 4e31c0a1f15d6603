/** The host API for one show, and what the console knows from it. */

import { computed, effect, type ReadonlySignal, signal } from "@preact/signals";
import type { LiveState } from "../live";
import { type CallOptions, call, download, type Order } from "../ui/api";
import { type Live, openLive } from "../ui/live";
import { attempt } from "../ui/parts";
import { keepToken, takeToken } from "../ui/token";
import { Latest } from "./latest";
import { Numbers } from "./numbers";
import { accessOf, may, type Operation } from "./permissions";
import type { Summary } from "./rehearsed";
import { RequestIds } from "./request-ids";
import type {
  Act,
  ChatPolicy,
  CreatedWebhook,
  DeadLetter,
  Delivery,
  OrderDetail,
  OrderVerb,
  Product,
  Rehearsal,
  Sale,
  SaleStats,
  Show,
  Webhook,
} from "./types";
import { UndoQueue } from "./undo";

const TOKEN_KEY = "livesale.host";

export const token = signal(takeToken(TOKEN_KEY));

export function setToken(value: string): void {
  keepToken(TOKEN_KEY, value);
  token.value = value;
}

/** What the token says that its bearer may do. */
export const access = computed(() => accessOf(token.value));

/**
 * Go to the sign-in page; leaving this one ends its connection and forgets the token. Not before:
 * who is asked about acts that wait may stay.
 */
export function signOut(): void {
  addEventListener("pagehide", () => keepToken(TOKEN_KEY, ""), { once: true });
  location.assign("/host");
}

/** A page that comes back from the browser's cache: signed out elsewhere in this tab, it is so too. */
export function followSignOut(): void {
  addEventListener("pageshow", (event) => {
    if (event.persisted && takeToken(TOKEN_KEY) !== token.value) location.reload();
  });
}

/** Throws ApiError. */
function ask<T>(method: string, path: string, body?: unknown): Promise<T> {
  const options: CallOptions = { token: token.value, ...(body !== undefined && { body }) };
  return call<T>(method, `/api/shows${path}`, options);
}

/** Newest first. */
export async function listShows(): Promise<Show[]> {
  return (await ask<{ shows: Show[] }>("GET", "")).shows;
}

export interface ShowFields {
  title: string;
  cover_url: string;
  playback_url: string;
  starts_at: number;
}

const shows = new RequestIds();

export function createShow(fields: ShowFields): Promise<Show> {
  return shows.once("show", JSON.stringify(fields), (id) =>
    ask("POST", "", { ...fields, request_id: id }),
  );
}

const REFRESH_MS = 700;
const RETRY_MS = 5_000;
const STATS_MS = 3_000;
const SETTLE_MS = 1_000;
export const ORDERS_PAGE = 200;

interface ProductList {
  products: Product[];
}

/** Empty fields do not filter. */
export interface OrderFilter {
  order: string;
  buyer: string;
  sale: string;
  status: string;
}

/** Above the id of every order. */
export const NEWEST = Number.MAX_SAFE_INTEGER;

/** One show on the console: acts refresh what they change; every method throws ApiError. */
export class Desk {
  readonly live: Live;
  readonly show = signal<Show | null>(null);
  readonly products = signal<readonly Product[]>([]);
  readonly sales = signal<readonly Sale[]>([]);
  readonly stats = signal<readonly SaleStats[]>([]);
  readonly policy = signal<ChatPolicy | null>(null);
  /** The later word of the room and of the API: others act too, and the link may be off. */
  readonly #roomIsLater = signal(true);
  readonly status = computed(() => {
    const phase = this.live.state.value.values.show?.phase as Show["status"] | undefined;
    return this.#later(phase, this.show.value?.status) ?? "scheduled";
  });
  readonly pinned = computed(() => {
    const pin = this.live.state.value.values.pin?.product;
    return this.#later(pin, this.show.value?.pinned_product) ?? 0;
  });
  /** Raised when there may be new orders to read. */
  readonly orderNews = signal(0);
  /** Large acts that can still be taken back. */
  readonly undo = new UndoQueue();
  readonly id: string;
  readonly numbers = new Numbers(this);
  readonly #requests = new RequestIds();
  readonly #salesTurn = new Latest();
  readonly #productsTurn = new Latest();
  #refresh: ReturnType<typeof setTimeout> | undefined;
  #restat: ReturnType<typeof setTimeout> | undefined;
  #statsAt = -STATS_MS;
  #settle: ReturnType<typeof setTimeout> | undefined;

  constructor(id: string) {
    this.id = id;
    this.live = openLive(id, token.value);
    effect(() => {
      if (this.show.value) this.#roomIsLater.value = false;
    });
    const said = computed(() => roomSaid(this.live.state.value));
    effect(() => {
      if (said.value) this.#roomIsLater.value = true;
    });
    const moved = computed(() => salesMoved(this.live.state.value));
    effect(() => {
      if (moved.value) this.refreshSoon();
    });
  }

  #later<T>(room: T | undefined, show: T | undefined): T | undefined {
    return this.#roomIsLater.value ? (room ?? show) : (show ?? room);
  }

  /** Server time in ms, in whole seconds. */
  get second(): ReadonlySignal<number> {
    return this.live.second;
  }

  async load(): Promise<void> {
    await this.#loadShow();
    await Promise.all([this.loadProducts(), this.loadSales(), this.#loadPolicy()]);
  }

  async loadProducts(): Promise<void> {
    await this.#takeProducts(() => this.ask("GET", "/products"));
  }

  async loadSales(): Promise<void> {
    const read = () => this.ask<{ sales: Sale[] }>("GET", "/sales");
    await this.#salesTurn.take(read, ({ sales }) => {
      this.sales.value = sales;
    });
    this.#restatSoon();
  }

  #takeProducts(ask: () => Promise<ProductList>): Promise<void> {
    return this.#productsTurn.take(ask, ({ products }) => {
      this.products.value = products;
    });
  }

  /**
   * Sales and inventories changed (bought, window over, another tab): read them again, at most
   * once per REFRESH_MS however fast it goes. Where nobody answers it is tried again.
   */
  refreshSoon(waitMs = REFRESH_MS): void {
    this.#refresh ??= setTimeout(async () => {
      this.#refresh = undefined;
      const failure = await attempt(() => Promise.all([this.loadSales(), this.loadProducts()]));
      this.orderNews.value += 1;
      if (failure?.isUnclear) this.refreshSoon(RETRY_MS);
    }, waitMs);
  }

  /** Whether the token allows it. */
  may(operation: Operation): boolean {
    return may(access.value, operation);
  }

  /** The takings go over all orders of the show: at most once per STATS_MS. */
  #restatSoon(): void {
    if (!this.may("stats")) return;
    const wait = this.#statsAt + STATS_MS - performance.now();
    this.#restat ??= setTimeout(
      async () => {
        this.#restat = undefined;
        await attempt(() => this.#loadStats());
      },
      Math.max(0, wait),
    );
  }

  async #loadStats(): Promise<void> {
    this.#statsAt = performance.now();
    this.stats.value = (await this.ask<{ sales: SaleStats[] }>("GET", "/stats")).sales;
  }

  // --- show ------------------------------------------------------------------------------------

  async turn(verb: "start" | "pause" | "resume" | "end"): Promise<void> {
    this.show.value = await this.ask("POST", `/${verb}`);
    if (verb === "end") await this.loadSales();
  }

  async editShow(fields: ShowFields): Promise<void> {
    this.show.value = await this.ask("PATCH", "", fields);
  }

  /** The same `requestId` again is said once; without one, the same text after an unclear end. */
  async say(text: string, requestId?: string): Promise<void> {
    await this.#requests.once("say", text, (id) =>
      this.ask("POST", "/commentary", { text, request_id: requestId ?? id }),
    );
  }

  async pin(product: number): Promise<void> {
    this.show.value = await this.ask("PUT", "/pin", { product });
  }

  // --- products --------------------------------------------------------------------------------

  async addProduct(fields: object): Promise<void> {
    await this.#requests.once("product", JSON.stringify(fields), (id) =>
      this.ask("POST", "/products", { ...fields, request_id: id }),
    );
    await this.loadProducts();
  }

  async editProduct(product: number, fields: object): Promise<void> {
    await this.ask("PATCH", `/products/${product}`, fields);
    await this.loadProducts();
  }

  async addSku(product: number, fields: object): Promise<void> {
    await this.ask("POST", `/products/${product}/skus`, fields);
    await this.loadProducts();
  }

  async editSku(sku: number, fields: object): Promise<void> {
    await this.ask("PATCH", `/skus/${sku}`, fields);
    await this.loadProducts();
  }

  /** `change` gets the run-list as it is now: another host may have changed it. */
  async changeRunList(change: (newest: readonly number[]) => readonly number[]): Promise<void> {
    await this.loadProducts();
    const listed = this.products.value.filter((product) => product.listed);
    const products = change(listed.map(({ product }) => product));
    await this.#takeProducts(() => this.ask("PUT", "/runlist", { products }));
  }

  // --- sales -----------------------------------------------------------------------------------

  async createSale(fields: object): Promise<void> {
    await this.#requests.once("sale", JSON.stringify(fields), (id) =>
      this.ask("POST", "/sales", { ...fields, request_id: id }),
    );
    await Promise.all([this.loadSales(), this.loadProducts()]);
  }

  async startSale(sale: number, startsAt: number): Promise<void> {
    await this.ask("POST", `/sales/${sale}/start`, { starts_at: startsAt });
    await this.loadSales();
  }

  async changeUnits(sale: number, verb: "restock" | "lower", units: number): Promise<void> {
    await this.#requests.once(`${sale} ${verb}`, String(units), (id) =>
      this.ask("POST", `/sales/${sale}/${verb}`, { units, request_id: id }),
    );
    await Promise.all([this.loadSales(), this.loadProducts()]);
  }

  async changePrice(sale: number, price: number): Promise<void> {
    await this.ask("POST", `/sales/${sale}/price`, { price });
    await this.loadSales();
  }

  async stopSale(sale: number): Promise<void> {
    await this.ask("POST", `/sales/${sale}/stop`);
    await Promise.all([this.loadSales(), this.loadProducts()]);
  }

  // --- order in the room -----------------------------------------------------------------------

  async moderate(verb: "mute" | "unmute" | "ban" | "unban", fields: object): Promise<void> {
    this.#settled(await this.ask("POST", `/${verb}`, fields));
  }

  async deleteLine(line: string): Promise<void> {
    await this.ask("POST", "/delete-line", { line });
  }

  async kick(user: string): Promise<void> {
    await this.ask("POST", "/kick", { user });
  }

  /** `change` gets the policy as it is now: another moderator may have changed it. */
  async changePolicy(change: (now: ChatPolicy) => Partial<ChatPolicy>): Promise<void> {
    const now = await this.ask<ChatPolicy>("GET", "/chat-policy");
    const { slow_mode_s, words } = { ...now, ...change(now) };
    this.#settled(await this.ask("PUT", "/chat-policy", { slow_mode_s, words }));
  }

  /** Take over `policy`, and look again until the room goes by it. */
  #settled(policy: ChatPolicy): void {
    this.policy.value = policy;
    if (!policy.pending) return;
    clearTimeout(this.#settle);
    this.#settle = setTimeout(() => attempt(() => this.#loadPolicy()), SETTLE_MS);
  }

  // --- orders and the log ----------------------------------------------------------------------

  /** Those with an id below `before`, newest first, at most ORDERS_PAGE of them. */
  async orders(filter: OrderFilter, before = NEWEST): Promise<Order[]> {
    const some = Object.entries(filter).filter(([, value]) => value !== "");
    const page = { before: String(before), limit: String(ORDERS_PAGE) };
    const query = new URLSearchParams({ ...page, ...Object.fromEntries(some) });
    return (await this.ask<{ orders: Order[] }>("GET", `/orders?${query}`)).orders;
  }

  order(order: number): Promise<OrderDetail> {
    return this.ask("GET", `/orders/${order}`);
  }

  async moveOrder(order: number, verb: OrderVerb): Promise<void> {
    await this.ask("POST", `/orders/${order}/${verb}`);
  }

  csv(): Promise<Blob> {
    return download(`/api/shows/${this.id}/orders.csv`, token.value);
  }

  /** Newest first. */
  async acts(): Promise<Act[]> {
    return (await this.ask<{ acts: Act[] }>("GET", "/acts")).acts;
  }

  // --- rehearsals ------------------------------------------------------------------------------

  rehearse(fields: object): Promise<Rehearsal> {
    return this.#requests.once("rehearse", JSON.stringify(fields), (id) =>
      this.ask("POST", "/rehearsals", { ...fields, request_id: id }),
    );
  }

  /** Newest first. */
  async rehearsals(): Promise<Rehearsal[]> {
    return (await this.ask<{ rehearsals: Rehearsal[] }>("GET", "/rehearsals")).rehearsals;
  }

  rehearsal(rehearsal: number): Promise<Rehearsal & { summary: Summary | null }> {
    return this.ask("GET", `/rehearsals/${rehearsal}`);
  }

  async stopRehearsal(rehearsal: number): Promise<void> {
    await this.ask("POST", `/rehearsals/${rehearsal}/stop`);
  }

  rehearsalReport(rehearsal: number): Promise<Blob> {
    return download(`/api/shows/${this.id}/rehearsals/${rehearsal}/report`, token.value);
  }

  // --- what was parked -------------------------------------------------------------------------

  /** Those nobody has decided on, newest first. */
  async deadLetters(): Promise<DeadLetter[]> {
    const path = "/dead-letters?status=parked";
    return (await this.ask<{ dead_letters: DeadLetter[] }>("GET", path)).dead_letters;
  }

  async decideDeadLetter(letter: number, verb: "redrive" | "give-back"): Promise<void> {
    await this.ask("POST", `/dead-letters/${letter}/${verb}`);
  }

  // --- webhooks --------------------------------------------------------------------------------

  /** Those that are told something, newest first. */
  async webhooks(): Promise<Webhook[]> {
    const { webhooks } = await this.ask<{ webhooks: Webhook[] }>("GET", "/webhooks");
    return webhooks.filter((hook) => hook.removed_at === 0);
  }

  addWebhook(url: string): Promise<CreatedWebhook> {
    return this.ask("POST", "/webhooks", { url });
  }

  async removeWebhook(webhook: number): Promise<void> {
    await this.ask("DELETE", `/webhooks/${webhook}`);
  }

  /** Newest first. */
  async deliveries(webhook: number): Promise<Delivery[]> {
    const path = `/webhooks/${webhook}/deliveries`;
    return (await this.ask<{ deliveries: Delivery[] }>("GET", path)).deliveries;
  }

  async resend(webhook: number, delivery: number): Promise<void> {
    await this.ask("POST", `/webhooks/${webhook}/deliveries/${delivery}/resend`);
  }

  async #loadShow(): Promise<void> {
    this.show.value = await this.ask("GET", "");
  }

  async #loadPolicy(): Promise<void> {
    this.#settled(await this.ask("GET", "/chat-policy"));
  }

  /** Any route below the show's own. */
  ask<T>(method: string, path: string, body?: unknown): Promise<T> {
    return ask<T>(method, `/${this.id}${path}`, body);
  }
}

/** Changes when the room says something new, or says it again after the link was off; else "". */
function roomSaid({ link, values: { show, pin } }: LiveState): string {
  return link.state === "live" ? `${show?.phase} ${pin?.product}` : "";
}

/** Changes when any unit or a sale's phase moved; "" before the first snapshot. */
function salesMoved({ values, epoch, seq }: LiveState): string {
  const units = Object.values(values.stocks).map((stock) => `${stock.held}:${stock.sold}`);
  return epoch ? `${seq} ${units.join(" ")}` : "";
}
