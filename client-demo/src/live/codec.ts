/** Bytes of messages: MessagePack (what pages use) and JSON (for people and debugging). */

import { Decoder, Encoder } from "@msgpack/msgpack";
import {
  type Command,
  type ServerMessage,
  SUBPROTOCOL_JSON,
  SUBPROTOCOL_MSGPACK,
} from "./messages";

export interface Codec {
  readonly subprotocol: string;
  encode(command: Command): string | Uint8Array<ArrayBuffer>;
  /** A message of a known shape, or null for one of a later protocol. Throws on broken bytes. */
  decode(data: unknown): ServerMessage | null;
}

const KNOWN: ReadonlySet<unknown> = new Set<ServerMessage["t"]>([
  "welcome",
  "tick",
  "accepted",
  "refused",
  "order",
  "bye",
]);

/** Messages are maps with a known `t`; the server is trusted with the rest of the shape. */
function known(value: unknown): ServerMessage | null {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new TypeError("a message must be a map");
  }
  return KNOWN.has((value as { t?: unknown }).t) ? (value as ServerMessage) : null;
}

const encoder = new Encoder({ ignoreUndefined: true });
const decoder = new Decoder();

export const msgpackCodec: Codec = {
  subprotocol: SUBPROTOCOL_MSGPACK,
  encode: (command) => encoder.encode(command),
  decode(data) {
    if (!(data instanceof ArrayBuffer)) throw new TypeError("expected a binary frame");
    return known(decoder.decode(new Uint8Array(data)));
  },
};

export const jsonCodec: Codec = {
  subprotocol: SUBPROTOCOL_JSON,
  encode: (command) => JSON.stringify(command),
  decode(data) {
    if (typeof data !== "string") throw new TypeError("expected a text frame");
    return known(JSON.parse(data));
  },
};
