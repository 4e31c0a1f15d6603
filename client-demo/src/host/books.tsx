/** The books of a show: orders, the audit, rehearsals, whom to tell, and the log of acts. */

import type { ComponentType } from "preact";
import { useState } from "preact/hooks";
import { t } from "../i18n";
import { dateTime } from "../ui/format";
import { AuditCard } from "./audit";
import { BOOKS, type BookName, openBook } from "./book-tabs";
import { DeadLetters } from "./dead-letters";
import type { Desk } from "./desk";
import { Leaf } from "./leaf";
import { Orders } from "./orders";
import { RehearsalCard } from "./rehearsal";
import type { Act } from "./types";
import { Webhooks } from "./webhooks";

type Part = ComponentType<{ desk: Desk }>;

const PARTS: Readonly<Record<BookName, Part>> = {
  orders: Orders,
  audit: AuditCard,
  rehearsal: RehearsalCard,
  webhooks: Webhooks,
  acts: Acts,
};

export function Books({ desk }: { desk: Desk }) {
  const open = openBook.value;
  const Open = PARTS[open];
  return (
    <div class="books" data-books>
      <DeadLetters desk={desk} />
      <div class="book-tabs" role="tablist" aria-label={t("books.title")} onKeyDown={onArrow}>
        {BOOKS.map((book) => (
          <button
            key={book}
            type="button"
            role="tab"
            id={`tab-${book}`}
            aria-selected={book === open}
            aria-controls="book"
            tabIndex={book === open ? 0 : -1}
            onClick={() => {
              openBook.value = book;
            }}
          >
            {t(`books.${book}`)}
          </button>
        ))}
      </div>
      <div role="tabpanel" id="book" aria-labelledby={`tab-${open}`}>
        <Open key={open} desk={desk} />
      </div>
    </div>
  );
}

/** Left and right go through the tabs, as the pattern of WAI-ARIA has it. */
function onArrow(event: KeyboardEvent): void {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step === undefined) return;
  const next = BOOKS.indexOf(openBook.value) + step;
  const book = BOOKS[(next + BOOKS.length) % BOOKS.length];
  if (!book) return;
  event.preventDefault();
  openBook.value = book;
  document.getElementById(`tab-${book}`)?.focus();
}

function Acts({ desk }: { desk: Desk }) {
  const [acts, setActs] = useState<readonly Act[]>([]);
  return (
    <Leaf title={t("acts.title")} load={async () => setActs(await desk.acts())}>
      {acts.length === 0 && <p class="empty">{t("acts.none")}</p>}
      <ol class="acts">
        {acts.map((act) => (
          <li key={act.act}>
            <time>{dateTime(act.at)}</time> <b>{act.actor}</b> {act.action}{" "}
            <code title={JSON.stringify(act.detail)}>{JSON.stringify(act.detail)}</code>
          </li>
        ))}
      </ol>
    </Leaf>
  );
}
