/** Claim ids: UUIDv7 (RFC 9562, 5.7), which sort by the time they were made. */

const COUNTER_MAX = 0xfff;

let lastMs = 0;
let counter = 0;

/** The next place in time: ms, and a counter for ids of the same ms (RFC 9562, 6.2, method 1). */
function step(seed: number): void {
  const now = Date.now();
  if (now > lastMs) {
    lastMs = now;
    counter = seed & 0x3ff; // random, with room to count up
  } else if (counter < COUNTER_MAX) {
    counter += 1;
  } else {
    lastMs += 1;
    counter = 0;
  }
}

/** A new id; later ones of this page sort behind earlier ones, also when the clock goes back. */
export function uuidv7(): string {
  const view = new DataView(new ArrayBuffer(16));
  crypto.getRandomValues(new Uint8Array(view.buffer));
  step(view.getUint16(6));
  view.setUint16(0, Math.floor(lastMs / 2 ** 32));
  view.setUint32(2, lastMs % 2 ** 32);
  view.setUint16(6, 0x7000 | counter);
  view.setUint8(8, 0x80 | (view.getUint8(8) & 0x3f));
  const hex = Array.from({ length: 16 }, (_, i) => view.getUint8(i).toString(16).padStart(2, "0"));
  return hex.join("").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
