/** The HTTP API, as both pages call it. */

import { t, textOf } from "../i18n";

/** A refusal of the API (a row of the server's error table) or a failure on the way. */
export class ApiError extends Error {
  constructor(
    readonly code: number,
    override readonly name: string,
    readonly zh: string,
    readonly en: string,
    readonly detail = "",
    readonly field = "",
  ) {
    super(name);
  }

  /** No answer, or the server's own trouble: the effect may have happened, asking again may help. */
  get isUnclear(): boolean {
    return this.code === 0 || (this.code >= 500 && this.code < 1_000) || this.code >= 1_400;
  }

  /** In the page's language; field and detail (English) behind it when the server named them. */
  text(): string {
    const base = this.zh
      ? textOf(this)
      : t(this.name === "bad_answer" ? "bad_answer" : "network_error");
    const about = [this.field, this.detail].filter((part) => part !== "").join(": ");
    return about ? `${base} (${about})` : base;
  }
}

type OrderStatus = "confirmed" | "paid" | "fulfilled" | "expired" | "cancelled" | "refunded";

/** One order (server/acts/views.py). Money in minor units, times in ms since 1970, 0: none. */
export interface Order {
  order_id: number;
  sale: number;
  product: number;
  product_title: string;
  sku: number;
  sku_title: string;
  buyer: string;
  claim_id: string;
  quantity: number;
  price: number;
  currency: string;
  status: OrderStatus;
  confirmed_at: number;
  pay_by: number;
}

export interface CallOptions {
  token?: string;
  body?: unknown;
}

/** A request that hangs must not hold up what waits for it. */
const CALL_TIMEOUT_MS = 15_000;
const DOWNLOAD_TIMEOUT_MS = 120_000;

/** JSON of the answer. Throws ApiError; after a network error the effect may have happened. */
export async function call<T>(method: string, path: string, options: CallOptions = {}): Promise<T> {
  const response = await request(method, path, options, CALL_TIMEOUT_MS);
  const text = await onTheWay(response.text());
  if (text === "") return undefined as T;
  try {
    return JSON.parse(text) as T;
  } catch {
    throw new ApiError(0, "bad_answer", "", "");
  }
}

/** A file of the API as bytes (the CSV needs the Authorization header, so no plain link). */
export async function download(path: string, token: string): Promise<Blob> {
  const response = await request("GET", path, { token }, DOWNLOAD_TIMEOUT_MS);
  return onTheWay(response.blob());
}

/** The timeout covers the body too. */
async function request(
  method: string,
  path: string,
  options: CallOptions,
  timeoutMs: number,
): Promise<Response> {
  const headers: Record<string, string> = {};
  if (options.token) headers.Authorization = `Bearer ${options.token}`;
  if (options.body !== undefined) headers["Content-Type"] = "application/json";
  const body = options.body === undefined ? null : JSON.stringify(options.body);
  const signal = AbortSignal.timeout(timeoutMs);
  const response = await onTheWay(
    fetch(path, { method, headers, body, signal, credentials: "omit" }),
  );
  if (!response.ok) throw await refusalOf(response);
  return response;
}

/** What `part` brings; whatever ends it on the way (no network, cut, timeout) is network_error. */
async function onTheWay<T>(part: Promise<T>): Promise<T> {
  try {
    return await part;
  } catch {
    throw new ApiError(0, "network_error", "", "");
  }
}

interface ErrorBody {
  error: { code: number; name: string; zh: string; en: string; detail?: string; field?: string };
}

async function refusalOf(response: Response): Promise<ApiError> {
  try {
    const { error } = (await response.json()) as ErrorBody;
    const { code, name, zh, en, detail, field } = error;
    return new ApiError(code, name, zh, en, detail ?? "", field ?? "");
  } catch {
    return new ApiError(response.status, "bad_answer", "", "");
  }
}
