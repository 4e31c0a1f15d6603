/**
 * What each role may do, by the operations of the host API. The console shows and asks only what the
 * token allows; what happens is the server's word (tests/integration/test_client_permissions.py
 * compares). Operations that the console does not know are no business of this table.
 */

export const FOR_MODERATORS = [
  "get_show",
  "list_products",
  "list_sales",
  "pin",
  "pulse",
  "series",
  "pins",
  "summary",
  "chat_policy",
  "set_chat_policy",
  "mute",
  "unmute",
  "ban",
  "unban",
  "kick",
  "delete_line",
] as const;

export const FOR_HOSTS = [
  "edit_show",
  "start_show",
  "pause_show",
  "resume_show",
  "end_show",
  "create_product",
  "edit_product",
  "add_sku",
  "edit_sku",
  "set_runlist",
  "say",
  "list_acts",
  "create_sale",
  "start_sale",
  "restock_sale",
  "lower_sale",
  "change_price",
  "stop_sale",
  "stats",
  "list_orders",
  "export_orders",
  "get_order",
  "cancel_order",
  "refund_order",
  "fulfil_order",
  "list_webhooks",
  "create_webhook",
  "remove_webhook",
  "list_deliveries",
  "resend_delivery",
  "resend_failed",
  "list_dead_letters",
  "get_dead_letter",
  "redrive_dead_letter",
  "give_back_dead_letter",
  "audit",
  "list_rehearsals",
  "list_shows",
] as const;

/** With a token that is not bound to one show. */
export const FOR_SHOW_MAKERS = ["create_show"] as const;

export type Operation =
  | (typeof FOR_MODERATORS | typeof FOR_HOSTS | typeof FOR_SHOW_MAKERS)[number]
  /** Sums of money, which the server leaves out of what moderators read. */
  | "see_money";

const MODERATED: ReadonlySet<string> = new Set(FOR_MODERATORS);
const MAKERS: ReadonlySet<string> = new Set(FOR_SHOW_MAKERS);

/** What a token says of itself; "" for one that cannot be read. */
export interface Access {
  role: string;
  /** The show it is for; `*`: every show of the host. */
  show: string;
}

/** Read without its signature, which only the server can check (server/web/auth.py). */
export function accessOf(token: string): Access {
  try {
    const payload = token.split(".")[1] ?? "";
    const bytes = Uint8Array.from(atob(payload.replace(/-/g, "+").replace(/_/g, "/")), (char) =>
      char.charCodeAt(0),
    );
    const { role, show } = JSON.parse(new TextDecoder().decode(bytes)) as Partial<Access>;
    return { role: String(role ?? ""), show: String(show ?? "") };
  } catch {
    return { role: "", show: "" };
  }
}

export function may({ role, show }: Access, operation: Operation): boolean {
  if (MAKERS.has(operation)) return role === "host" && show === "*";
  return role === "host" || (role === "moderator" && MODERATED.has(operation));
}
