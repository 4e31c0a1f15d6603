/** Where claims are kept: localStorage, or memory where a browser refuses it. */

/** What of localStorage is used. */
export interface KeyValueStore {
  readonly length: number;
  key(index: number): string | null;
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/** Lasts as long as the page. */
class MemoryStore implements KeyValueStore {
  readonly #values = new Map<string, string>();

  get length(): number {
    return this.#values.size;
  }

  key(index: number): string | null {
    return [...this.#values.keys()][index] ?? null;
  }

  getItem(key: string): string | null {
    return this.#values.get(key) ?? null;
  }

  setItem(key: string, value: string): void {
    this.#values.set(key, value);
  }

  removeItem(key: string): void {
    this.#values.delete(key);
  }
}

/** The page's own store. Where storage is blocked, already naming it throws, or every use does. */
export function pageStore(): KeyValueStore {
  try {
    globalThis.localStorage.getItem("");
    return globalThis.localStorage;
  } catch {
    return new MemoryStore();
  }
}
