/** Which of the show's books is open; anything on the page may open one. */

import { signal } from "@preact/signals";

export const BOOKS = ["orders", "audit", "rehearsal", "webhooks", "acts"] as const;
export type BookName = (typeof BOOKS)[number];

export const openBook = signal<BookName>("orders");
/** Raised when somebody wants to see the books. */
export const booksAsked = signal(0);

/** Open `book` and bring it into view. */
export function showBook(book: BookName): void {
  openBook.value = book;
  booksAsked.value += 1;
  const gently = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  requestAnimationFrame(() => {
    const books = document.querySelector("[data-books]");
    books?.scrollIntoView({ behavior: gently ? "smooth" : "auto", block: "start" });
  });
}
