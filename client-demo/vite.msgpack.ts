/** MessagePack without extension types: the wire has none, so their code need not be loaded. */

import type { Plugin } from "vite";

const NONE = `
export class ExtensionCodec {
  static defaultCodec = new ExtensionCodec();
  tryToEncode() {
    return null;
  }
  decode() {
    throw new TypeError("an extension type");
  }
}`;

/** In the place of @msgpack/msgpack's own codec, for all that is built. */
export function noExtensions(): Plugin {
  return {
    name: "livesale-no-extensions",
    apply: "build",
    load: (id) => (id.endsWith("/@msgpack/msgpack/dist.esm/ExtensionCodec.mjs") ? NONE : null),
  };
}
