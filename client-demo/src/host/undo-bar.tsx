/** The large acts that wait: taken back or sent at once from here. */

import { useEffect } from "preact/hooks";
import { t } from "../i18n";
import type { FailedAct, HeldBack, UndoQueue } from "./undo";

export function UndoBar({ undo }: { undo: UndoQueue }) {
  const acts = undo.acts.value;
  const waits = acts.length > 0;
  useEffect(() => (waits ? warnOnLeaving() : undefined), [waits]);
  useEffect(() => (waits ? lookWhenSeen(undo) : undefined), [waits, undo]);
  return (
    <section class="undos" aria-label={t("undo.title")}>
      {acts.map((act) => (
        <Held key={act.id} undo={undo} act={act} />
      ))}
      {undo.failed.value.map((act) => (
        <Failed key={act.id} undo={undo} act={act} />
      ))}
    </section>
  );
}

/** The text is told once; the seconds only to the eye. */
function Held({ undo, act }: { undo: UndoQueue; act: HeldBack }) {
  return (
    <div class="undo" data-undo={act.id}>
      <p class="sr-only" role="alert">
        {act.what}
      </p>
      <p class="undo-what" aria-hidden="true">
        {t("undo.in", { n: act.left, what: act.what })}
      </p>
      <button type="button" class="undo-back" onClick={() => undo.undo(act.id)}>
        {t("undo.undo")}
      </button>
      <button type="button" class="undo-now" onClick={() => undo.sendNow(act.id)}>
        {t("undo.now")}
      </button>
    </div>
  );
}

/** It stays until it was read. */
function Failed({ undo, act }: { undo: UndoQueue; act: FailedAct }) {
  return (
    <div class="undo undo-failed">
      <p class="undo-what" role="alert">
        {t("undo.failed", { what: act.what, why: act.error.text() })}
      </p>
      <button type="button" class="undo-now" onClick={() => undo.dismiss(act.id)}>
        {t("close")}
      </button>
    </div>
  );
}

/** The time of what waits may have passed while nobody saw the page. */
function lookWhenSeen(undo: UndoQueue): () => void {
  const look = () => undo.look();
  document.addEventListener("visibilitychange", look);
  return () => document.removeEventListener("visibilitychange", look);
}

/** The browser asks before the page goes, which would drop what waits. */
function warnOnLeaving(): () => void {
  const warn = (event: BeforeUnloadEvent) => event.preventDefault();
  addEventListener("beforeunload", warn);
  return () => removeEventListener("beforeunload", warn);
}
