/** The client SDK: everything an embedding page needs, no framework. */

export { type ClaimPhase, type ClaimRecord, type ClaimWish, isHeld, isUndecided } from "./claims";
export { ServerClock } from "./clock";
export { type Codec, jsonCodec, msgpackCodec } from "./codec";
export * from "./messages";
export { type ChatEntry, EMPTY, type HostEntry, type Link, type LiveState } from "./reducer";
export { LiveSession, type SessionOptions } from "./session";
