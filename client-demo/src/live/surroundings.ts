/** What a browser tells a page about itself: the network, its visibility, other tabs' storage. */

export interface Surroundings {
  onNetworkLost(): void;
  onNetworkBack(): void;
  onHidden(): void;
  onShown(): void;
  /** Another tab of this site wrote to localStorage under `key`. */
  onStored(key: string): void;
}

/** Whether nobody can see the page; never where there is no document. */
export function isHidden(): boolean {
  return globalThis.document?.hidden ?? false;
}

/** Tell `page` from now on. Returns how to stop; without a window there is nothing to tell. */
export function watchSurroundings(page: Surroundings): () => void {
  const ending = new AbortController();
  const { signal } = ending;
  globalThis.window?.addEventListener("offline", () => page.onNetworkLost(), { signal });
  globalThis.window?.addEventListener("online", () => page.onNetworkBack(), { signal });
  const stored = ({ key }: StorageEvent) => key && page.onStored(key);
  globalThis.window?.addEventListener("storage", stored, { signal });
  const seen = () => (isHidden() ? page.onHidden() : page.onShown());
  globalThis.document?.addEventListener("visibilitychange", seen, { signal });
  return () => ending.abort();
}
