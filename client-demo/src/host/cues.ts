/** Where a host is in the cues of a product. */

/** One showing of a cue is said once, however often Enter is pressed: `request` names it. */
export interface Reading {
  place: number;
  request: string;
  /** The request that was said last; "" before the first. */
  saidLast: string;
  /** Place of a cue to the time it was said last, ms. */
  said: ReadonlyMap<number, number>;
}

export function startReading(request: string): Reading {
  return { place: 0, request, saidLast: "", said: new Map() };
}

/** At another place of `count` cues, as near to `place` as there are; the same place stays. */
export function readAt(reading: Reading, place: number, count: number, request: string): Reading {
  const next = Math.max(0, Math.min(place, count - 1));
  return next === reading.place ? reading : { ...reading, place: next, request };
}

/** This showing was said already: to say the cue again, go elsewhere and come back. */
export function isSaid({ request, saidLast }: Reading): boolean {
  return request === saidLast;
}

/** `spoken` was said at `at` ms; `reading` may have gone on meanwhile. */
export function markSaid(reading: Reading, spoken: Reading, at: number): Reading {
  const said = new Map(reading.said).set(spoken.place, at);
  return { ...reading, said, saidLast: spoken.request };
}

/** By how many places `key` moves among `count` cues; 0: not a key that moves. */
export function stepOf(key: string, count: number): number {
  if (key === "ArrowDown" || key === "PageDown") return 1;
  if (key === "ArrowUp" || key === "PageUp") return -1;
  if (key === "Home") return -count;
  return key === "End" ? count : 0;
}

/** Cues as they are written: one per line, empty lines left out. */
export function cuesOf(text: string): string[] {
  return text.split(/\s*\n\s*/).filter((cue) => cue.trim() !== "");
}
