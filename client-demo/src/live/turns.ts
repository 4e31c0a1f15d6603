/**
 * Which tab of a buyer sends a claim: the one whose turn it is. A turn is a Web Lock, so the browser
 * gives it to another tab when this one leaves, is closed or crashes. Where there are no locks (a
 * page without https, an old browser) it is everybody's turn: the claim's id keeps that safe.
 */
export class Turns {
  readonly #mine = new Set<string>();
  readonly #ends = new Map<string, () => void>();
  readonly #locks = globalThis.navigator?.locks as LockManager | undefined;

  /** Whether turns pass from tab to tab. */
  get pass(): boolean {
    return this.#locks !== undefined;
  }

  /** Whether it is this tab's turn with `name`. */
  has(name: string): boolean {
    return this.#mine.has(name);
  }

  /** Stand in line for `name`; `onTurn` is called when it is this tab's turn, perhaps at once. */
  take(name: string, onTurn: () => void): void {
    if (this.#mine.has(name)) onTurn();
    if (this.#ends.has(name)) return;
    let end = () => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    this.#ends.set(name, end);
    let begun = false;
    const begin = () => {
      begun = true;
      if (this.#ends.get(name) !== end) return undefined;
      this.#mine.add(name);
      onTurn();
      return ended;
    };
    if (!this.#locks) begin();
    else {
      this.#locks.request(`livesale.${name}`, begin).catch((error: unknown) => {
        if (begun) throw error;
        begin(); // The browser refuses locks to this page.
      });
    }
  }

  /** Nobody else knows `name` yet: it is this tab's turn at once. */
  begin(name: string): void {
    this.#mine.add(name);
    this.take(name, () => {});
  }

  leave(name: string): void {
    this.#ends.get(name)?.();
    this.#ends.delete(name);
    this.#mine.delete(name);
  }

  leaveAll(): void {
    for (const name of this.#ends.keys()) this.leave(name);
  }
}
