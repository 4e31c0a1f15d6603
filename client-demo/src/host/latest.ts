/** Several answers to one question, which may overtake each other. */

export class Latest {
  #asked = 0;
  #taken = 0;

  /** `put` what `ask` answers, unless what was asked later is there already. Throws what it throws. */
  async take<T>(ask: () => Promise<T>, put: (answer: T) => void): Promise<void> {
    this.#asked += 1;
    const turn = this.#asked;
    const answer = await ask();
    if (turn < this.#taken) return;
    this.#taken = turn;
    put(answer);
  }
}
