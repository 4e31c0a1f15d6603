/** The prompter: what the host means to say about the product, said with one key. */

import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { t } from "../i18n";
import { uuidv7 } from "../live/uuid";
import type { ApiError } from "../ui/api";
import { timeOfDay } from "../ui/format";
import { attempt, Failure } from "../ui/parts";
import { isSaid, markSaid, type Reading, readAt, startReading, stepOf } from "./cues";
import type { Desk } from "./desk";
import { ActButton, ActForm, Field } from "./form";
import type { Product } from "./types";

const SAID_SHOWN = 2;

export function Prompter({ desk }: { desk: Desk }) {
  const product = promptedProduct(desk);
  const [full, setFull] = useState(false);
  const said = desk.live.state.value.host.filter((entry) => entry.k === "commentary");
  return (
    <section class="card prompter">
      <h2>{product ? t("prompter.of", { name: product.title }) : t("prompter.title")}</h2>
      {product?.cues.length ? (
        <Cues key={product.product} desk={desk} product={product} full={full} onFull={setFull} />
      ) : (
        <p class="empty">{t("prompter.none")}</p>
      )}
      <ActForm
        class="inline"
        label={t("say.send")}
        clears
        act={({ text = "" }) => desk.say(text.trim())}
      >
        <Field label={t("say.text")} name="text" required maxLength={500} />
      </ActForm>
      <ol class="said" aria-label={t("say.title")}>
        {said.slice(-SAID_SHOWN).map((entry) => (
          <li key={entry.seq}>
            <time>{timeOfDay(entry.at)}</time> {entry.text}
          </li>
        ))}
      </ol>
    </section>
  );
}

/** The pinned product; without one the first of the run-list, which comes next. */
function promptedProduct(desk: Desk): Product | undefined {
  const products = desk.products.value;
  const pinned = products.find((product) => product.product === desk.pinned.value);
  return pinned ?? products.find((product) => product.listed);
}

interface CuesProps {
  desk: Desk;
  product: Product;
  /** On the whole screen: kept when another product is pinned. */
  full: boolean;
  onFull: (full: boolean) => void;
}

function Cues({ desk, product, full, onFull }: CuesProps) {
  const [reading, setReading] = useState(() => startReading(uuidv7()));
  const [error, setError] = useState<ApiError | null>(null);
  const { cues } = product;
  const go = (place: number) =>
    setReading((before) => readAt(before, place, cues.length, uuidv7()));
  // Cues may be taken out under the reader.
  useLayoutEffect(() => go(reading.place), [cues.length]);
  const say = async () => {
    const cue = cues[reading.place];
    if (!cue || isSaid(reading)) return;
    const failure = await attempt(() => desk.say(cue, reading.request));
    setError(failure);
    if (!failure) setReading((now) => markSaid(now, reading, desk.live.session.clock.now()));
  };
  const part = (
    <>
      <CueList cues={cues} reading={reading} onGo={go} onSay={say} />
      <p class="row">
        <ActButton class="plain accent" label={t("prompter.say")} act={say} />
        <ActButton label={t("prompter.next")} act={async () => go(reading.place + 1)} />
        {!full && (
          <button type="button" class="plain" onClick={() => onFull(true)}>
            {t("prompter.full")}
          </button>
        )}
      </p>
      <p class="help">{t("prompter.keys")}</p>
      <Failure error={error} />
    </>
  );
  if (!full) return part;
  return (
    <FullScreen title={product.title} onClose={() => onFull(false)}>
      {part}
    </FullScreen>
  );
}

interface CueListProps {
  cues: readonly string[];
  reading: Reading;
  onGo: (place: number) => void;
  onSay: () => Promise<void>;
}

function CueList({ cues, reading, onGo, onSay }: CueListProps) {
  const list = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => keepInView(list.current, reading.place), [reading.place]);
  const press = (event: KeyboardEvent) => {
    const step = stepOf(event.key, cues.length);
    if (step === 0 && event.key !== "Enter") return;
    event.preventDefault();
    if (step !== 0) onGo(reading.place + step);
    else if (!event.repeat) void onSay();
  };
  return (
    <div
      ref={list}
      class="cues"
      role="listbox"
      tabIndex={0}
      aria-label={t("prompter.title")}
      aria-activedescendant={`cue-${reading.place}`}
      onKeyDown={press}
    >
      {cues.map((cue, place) => (
        // biome-ignore lint/a11y/useKeyWithClickEvents: the list itself takes the keys
        <div
          key={place}
          id={`cue-${place}`}
          class={reading.said.has(place) ? "cue cue-said" : "cue"}
          role="option"
          tabIndex={-1}
          aria-selected={place === reading.place}
          data-cue={place}
          onClick={() => onGo(place)}
        >
          {cue}
          {reading.said.has(place) && <time>{timeOfDay(reading.said.get(place) ?? 0)}</time>}
        </div>
      ))}
    </div>
  );
}

/** Scroll the list only, never the page. */
function keepInView(list: HTMLElement | null, place: number): void {
  const cue = list?.children[place] as HTMLElement | undefined;
  if (!list || !cue) return;
  const above = cue.offsetTop - list.offsetTop;
  list.scrollTop = above - (list.clientHeight - cue.offsetHeight) / 2;
}

interface FullScreenProps {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
}

function FullScreen({ title, onClose, children }: FullScreenProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    dialog.current?.showModal();
    dialog.current?.querySelector<HTMLElement>(".cues")?.focus();
  }, []);
  return (
    <dialog ref={dialog} class="prompter-full" aria-label={title} onClose={onClose}>
      <header>
        <h2>{title}</h2>
        <button type="button" class="plain" onClick={onClose}>
          {t("close")}
        </button>
      </header>
      {children}
    </dialog>
  );
}
