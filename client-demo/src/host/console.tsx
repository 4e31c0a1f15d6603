/** The console of one show: its head, then goods, sales and the room side by side, the books below. */

import { useEffect, useState } from "preact/hooks";
import { t } from "../i18n";
import type { ApiError } from "../ui/api";
import { span } from "../ui/format";
import { attempt, Failure, LangSwitch, LinkBadge } from "../ui/parts";
import { AuditBadge } from "./audit-badge";
import { booksAsked } from "./book-tabs";
import { Books } from "./books";
import { Boundary } from "./boundary";
import { Charts } from "./charts";
import { type Desk, signOut } from "./desk";
import { ActButton, ActForm } from "./form";
import { HealthStrip } from "./health";
import { NextSteps } from "./next-steps";
import { PinWindows } from "./pins";
import { Products } from "./products";
import { Prompter } from "./prompter";
import { Room } from "./room";
import { Sales } from "./sales";
import { ShowFieldset, showFields } from "./show-list";
import { Summary } from "./summary";
import { TopNumbers } from "./top-numbers";
import { UndoBar } from "./undo-bar";

/** Parts of the console that take turns on a narrow window. */
const TABS = ["goods", "sales", "room", "books"] as const;
type Tab = (typeof TABS)[number];

export function Console({ desk }: { desk: Desk }) {
  const [error, setError] = useState<ApiError | null>(null);
  useEffect(() => {
    attempt(() => desk.load()).then(setError);
  }, [desk]);
  const title = desk.show.value?.title;
  useEffect(() => {
    if (title) document.title = `${title} · livesale`;
  }, [title]);
  if (!desk.show.value) return <Opening error={error} />;
  return (
    <>
      {/* First for the keyboard: there is little time. */}
      <UndoBar undo={desk.undo} />
      <Boundary>
        <Head desk={desk} />
      </Boundary>
      {error && <Failure error={error} />}
      <Body desk={desk} />
    </>
  );
}

function Opening({ error }: { error: ApiError | null }) {
  return (
    <main class="gate">
      <div class="card">
        {error ? <Failure error={error} /> : <p>{t("loading")}</p>}
        <p class="row">
          <a href="/host">{t("host.all_shows")}</a>
          <button type="button" class="plain" onClick={signOut}>
            {t("host.sign_out")}
          </button>
        </p>
      </div>
    </main>
  );
}

function Body({ desk }: { desk: Desk }) {
  const asked = useHash() === "#summary";
  const ended = desk.status.value === "ended";
  if (!asked && !ended) return <Stage desk={desk} />;
  return (
    <main class="console console-over">
      {!ended && (
        <a class="plain" href="#console">
          {t("host.console")}
        </a>
      )}
      <Boundary>
        <Summary desk={desk} />
      </Boundary>
      {desk.may("list_orders") && (
        <Boundary>
          <Books desk={desk} />
        </Boundary>
      )}
    </main>
  );
}

function useHash(): string {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const follow = () => setHash(location.hash);
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return hash;
}

function Stage({ desk }: { desk: Desk }) {
  const [tab, setTab] = useState<Tab>("sales");
  useEffect(() => {
    if (booksAsked.value > 0) setTab("books");
  }, [booksAsked.value]);
  const goTo = (place: string) => {
    setTab(TABS.find((name) => place.startsWith(`#${name}`)) ?? tab);
    requestAnimationFrame(() => show(place));
  };
  return (
    <>
      {desk.may("start_show") && <NextSteps desk={desk} goTo={goTo} />}
      <main class="console" data-tab={tab}>
        <div class="column column-goods">
          <Boundary>
            <Products desk={desk} />
            {desk.may("say") && <Prompter desk={desk} />}
            {desk.may("edit_show") && <Edit desk={desk} />}
          </Boundary>
        </div>
        <div class="column column-sales">
          <Boundary>
            <Sales desk={desk} />
          </Boundary>
          <div class="numbers">
            <Boundary>
              <Charts desk={desk} />
              <PinWindows desk={desk} />
            </Boundary>
          </div>
        </div>
        <div class="column column-room">
          <Boundary>
            <Room desk={desk} />
          </Boundary>
        </div>
        {desk.may("list_orders") && (
          <Boundary>
            <Books desk={desk} />
          </Boundary>
        )}
      </main>
      <Tabs desk={desk} tab={tab} onTab={setTab} />
    </>
  );
}

/** Bring what `place` selects into view and give it the focus. */
function show(place: string): void {
  const found = document.querySelector<HTMLElement>(place);
  const folded = found?.closest("details");
  if (folded) folded.open = true;
  found?.scrollIntoView({ block: "center" });
  found?.focus({ preventScroll: true });
}

interface TabsProps {
  desk: Desk;
  tab: Tab;
  onTab: (tab: Tab) => void;
}

function Tabs({ desk, tab, onTab }: TabsProps) {
  const tabs = TABS.filter((name) => name !== "books" || desk.may("list_orders"));
  return (
    <nav class="turn-bar" aria-label={t("host.console")}>
      {tabs.map((name) => (
        <button
          key={name}
          type="button"
          aria-current={name === tab}
          onClick={() => {
            onTab(name);
            scrollTo(0, 0);
          }}
        >
          {t(`tab.${name}`)}
        </button>
      ))}
    </nav>
  );
}

function Head({ desk }: { desk: Desk }) {
  const status = desk.status.value;
  return (
    <>
      <header class="top">
        <div class="top-show">
          {desk.may("list_shows") && (
            <a href="/host" class="back" title={t("host.all_shows")}>
              <span class="sr-only">{t("host.all_shows")}</span>
            </a>
          )}
          <h1 title={desk.show.value?.title}>{desk.show.value?.title}</h1>
          <b class={`phase phase-${status}`}>{t(`phase.${status}`)}</b>
          <Elapsed desk={desk} />
        </div>
        <TopNumbers desk={desk} />
        <div class="top-tools">
          <div class="turns" id="turns">
            {desk.may("start_show") && <Turns desk={desk} />}
          </div>
          <a class="plain" href={`/watch/${desk.id}`} target="_blank" rel="noreferrer noopener">
            {t("host.viewer_page")}
          </a>
          <LangSwitch />
        </div>
      </header>
      <section class="top-strip" aria-label={t("host.console")}>
        <LinkBadge link={desk.live.state.value.link} />
        {desk.may("audit") && <AuditBadge desk={desk} />}
        <HealthStrip desk={desk} />
        <p class="signed-in">
          {!desk.may("start_show") && <span>{t("chat.moderator")}</span>}
          <button type="button" class="plain" onClick={signOut}>
            {t("host.sign_out")}
          </button>
        </p>
      </section>
    </>
  );
}

/** Since the show went live. */
function Elapsed({ desk }: { desk: Desk }) {
  const since = desk.show.value?.started_at ?? 0;
  const status = desk.status.value;
  if (since === 0 || (status !== "live" && status !== "paused")) return null;
  const time = span(Math.max(0, desk.live.second.value - since));
  return <time class="elapsed">{t("show.elapsed", { time })}</time>;
}

function Turns({ desk }: { desk: Desk }) {
  const status = desk.status.value;
  const end = () => desk.turn("end");
  return (
    <>
      {status === "scheduled" && (
        <ActButton class="primary" label={t("show.start")} act={() => desk.turn("start")} />
      )}
      {status === "live" && <ActButton label={t("show.pause")} act={() => desk.turn("pause")} />}
      {status === "paused" && (
        <ActButton class="primary" label={t("show.resume")} act={() => desk.turn("resume")} />
      )}
      {(status === "live" || status === "paused") && (
        <ActButton
          class="danger"
          label={t("show.end")}
          title={t("show.end_hint")}
          act={() => desk.undo.run({ act: "end" }, "", t("undo.end"), end)}
        />
      )}
    </>
  );
}

function Edit({ desk }: { desk: Desk }) {
  const show = desk.show.value;
  if (!show) return null;
  return (
    <details class="card">
      <summary>{t("show.edit")}</summary>
      <ActForm label={t("save")} act={(values) => desk.editShow(showFields(values))}>
        <ShowFieldset show={show} />
      </ActForm>
    </details>
  );
}
