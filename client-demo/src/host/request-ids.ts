/** Ids of requests that the server does once, however often they come. */

import { uuidv7 } from "../live/uuid";
import { ApiError } from "../ui/api";

interface Open {
  fields: string;
  id: string;
}

/**
 * After an unknown outcome the same `fields` of the same `subject` are asked with the id they had:
 * pressing again finds out instead of doing it twice. Other fields, and whatever was answered,
 * begin anew.
 */
export class RequestIds {
  readonly #unknown = new Map<string, Open>();

  /** Throws what `ask` throws. */
  async once<T>(subject: string, fields: string, ask: (id: string) => Promise<T>): Promise<T> {
    const open = this.#unknown.get(subject);
    const id = open?.fields === fields ? open.id : uuidv7();
    this.#unknown.delete(subject);
    try {
      return await ask(id);
    } catch (error) {
      if (error instanceof ApiError && error.isUnclear) this.#unknown.set(subject, { fields, id });
      throw error;
    }
  }
}
