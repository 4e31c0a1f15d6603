/** The large acts that wait: taken back or sent at once from here. */

import { useEffect, useRef } from "preact/hooks";
import { t } from "../i18n";
import { type FailedAct, type HeldBack, UNDO_S, type UndoQueue } from "./undo";

/** Leads to the acts from wherever the focus is, and back. */
const KEY = "F8";

export function UndoBar({ undo }: { undo: UndoQueue }) {
  const bar = useRef<HTMLElement>(null);
  const acts = undo.acts.value;
  const waits = acts.length > 0;
  useEffect(() => (waits ? warnOnLeaving() : undefined), [waits]);
  useEffect(() => (waits ? lookWhenSeen(undo) : undefined), [waits, undo]);
  const waiting = acts.map(({ id }) => id).join();
  useAttention(bar, undo, waiting);
  useWayIn(bar, waiting);
  return (
    <section
      ref={bar}
      class={undo.paused.value ? "undos undos-paused" : "undos"}
      aria-label={t("undo.title")}
    >
      {acts.map((act) => (
        <Held key={act.id} undo={undo} act={act} />
      ))}
      {undo.failed.value.map((act) => (
        <Failed key={act.id} undo={undo} act={act} />
      ))}
      <p class="sr-only" role="status">
        {waits && undo.paused.value && t("undo.paused")}
      </p>
    </section>
  );
}

interface Bar {
  readonly current: HTMLElement | null;
}

/** Time stands still while the pointer or the focus is on an act: no hurry to read and decide. */
function useAttention(bar: Bar, undo: UndoQueue, waiting: string): void {
  const look = () => undo.pause(waitsUnder(bar.current));
  // The act under the pointer or with the focus may be gone, or a new one come under the pointer.
  useEffect(look, [waiting]);
  useEffect(() => {
    const looking = new AbortController();
    const { signal } = looking;
    for (const kind of ["pointerover", "pointerout", "focusin", "focusout"] as const) {
      // Only when it is over the browser knows where pointer and focus are.
      bar.current?.addEventListener(kind, () => setTimeout(look), { signal });
    }
    return () => looking.abort();
  }, [undo]);
}

const ATTENDED = "[data-undo]:focus-within";
/** A finger leaves no pointer behind. */
const POINTED = "[data-undo]:hover";

function waitsUnder(bar: HTMLElement | null): boolean {
  const hovers = matchMedia("(hover: hover)").matches;
  return !!bar?.querySelector(hovers ? `${ATTENDED}, ${POINTED}` : ATTENDED);
}

/** KEY goes to the newest act; where that is done, or by Escape, the focus goes back. */
function useWayIn(bar: Bar, waiting: string): void {
  const from = useRef<HTMLElement | null>(null);
  const leave = () => {
    from.current?.focus();
    from.current = null;
  };
  useEffect(() => {
    const isLost = document.activeElement === document.body;
    if (!from.current || !isLost) return;
    const next = newest(bar.current);
    if (next) next.focus();
    else leave();
  }, [waiting]);
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      const inside = !!bar.current?.contains(document.activeElement);
      const target = newest(bar.current);
      if (event.key === "Escape" && inside) leave();
      if (event.key !== KEY || inside || !target) return;
      event.preventDefault();
      from.current = document.activeElement as HTMLElement | null;
      target.focus();
    };
    const looked = ({ target }: FocusEvent) => {
      if (!bar.current?.contains(target as Node)) from.current = null; // gone elsewhere by itself
    };
    const listening = new AbortController();
    document.addEventListener("keydown", press, { signal: listening.signal });
    document.addEventListener("focusin", looked, { signal: listening.signal });
    return () => listening.abort();
  }, []);
}

function newest(bar: HTMLElement | null): HTMLElement | undefined {
  return [...(bar?.querySelectorAll<HTMLElement>(".undo-back") ?? [])].at(-1);
}

/**
 * The text is told once, with the way to it; the seconds only to the eye. The words for time that
 * runs and for time that stands share one place, as wide as the longer: the buttons must not move
 * away under the pointer that stops the time by coming to them.
 */
function Held({ undo, act }: { undo: UndoQueue; act: HeldBack }) {
  const stands = undo.paused.value;
  const left = { n: act.left, what: act.what };
  return (
    <div class="undo" data-undo={act.id}>
      <p class="sr-only" role="alert">
        {t("undo.told", { n: UNDO_S, what: act.what, key: KEY })}
      </p>
      <p class="undo-what" aria-hidden="true">
        <span class={stands ? "undo-words undo-stands" : "undo-words"}>
          <span>{t("undo.in", left)}</span>
          <span>{t("undo.stands", left)}</span>
        </span>
        <kbd>{KEY}</kbd>
      </p>
      <button
        type="button"
        class="undo-back"
        aria-keyshortcuts={KEY}
        aria-label={t("undo.undo_what", { what: act.what })}
        onClick={() => undo.undo(act.id)}
      >
        {t("undo.undo")}
      </button>
      <button
        type="button"
        class="undo-now"
        aria-label={t("undo.now_what", { what: act.what })}
        onClick={() => undo.sendNow(act.id)}
      >
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
