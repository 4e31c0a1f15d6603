/** The large acts that wait: taken back or sent at once from here. */

import { useEffect } from "preact/hooks";
import { t } from "../i18n";
import type { HeldBack, UndoQueue } from "./undo";

export function UndoBar({ undo }: { undo: UndoQueue }) {
  const acts = undo.acts.value;
  const waits = acts.length > 0;
  useEffect(() => (waits ? warnOnLeaving() : undefined), [waits]);
  return (
    <section class="undos" aria-label={t("undo.title")}>
      {acts.map((act) => (
        <Held key={act.id} undo={undo} act={act} />
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

/** The browser asks before the page goes, which would drop what waits. */
function warnOnLeaving(): () => void {
  const warn = (event: BeforeUnloadEvent) => event.preventDefault();
  addEventListener("beforeunload", warn);
  return () => removeEventListener("beforeunload", warn);
}
