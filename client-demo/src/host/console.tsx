/** The console of one show: head with its phase, then products, sales, the room, orders. */

import { useEffect, useState } from "preact/hooks";
import { t } from "../i18n";
import type { ApiError } from "../ui/api";
import { count } from "../ui/format";
import { Eye, Heart } from "../ui/icons";
import { attempt, Failure, LangSwitch, LinkBadge } from "../ui/parts";
import { Books } from "./books";
import { type Desk, setToken } from "./desk";
import { ActButton, ActForm, Field } from "./form";
import { Products } from "./products";
import { Room } from "./room";
import { Sales } from "./sales";
import { ShowFieldset, showFields } from "./show-list";
import type { Show } from "./types";

export function Console({ desk }: { desk: Desk }) {
  const [error, setError] = useState<ApiError | null>(null);
  useEffect(() => {
    attempt(() => desk.load()).then(setError);
  }, [desk]);
  if (!desk.show.value) return <Opening error={error} />;
  return (
    <>
      <Head desk={desk} />
      <main class="console">
        {error && (
          <div class="books">
            <Failure error={error} />
          </div>
        )}
        <div class="column">
          <Say desk={desk} />
          <Products desk={desk} />
        </div>
        <div class="column">
          <Sales desk={desk} />
        </div>
        <div class="column">
          <Room desk={desk} />
          <Edit desk={desk} />
        </div>
        <Books desk={desk} />
      </main>
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
          <button type="button" class="plain" onClick={() => setToken("")}>
            {t("host.sign_out")}
          </button>
        </p>
      </div>
    </main>
  );
}

function Head({ desk }: { desk: Desk }) {
  const { values, link } = desk.live.state.value;
  const status = desk.status.value;
  return (
    <header class="top">
      <div class="top-show">
        <a href="/host" class="back">
          {t("host.all_shows")}
        </a>
        <h1>{desk.show.value?.title}</h1>
        <b class={`phase phase-${status}`}>{t(`phase.${status}`)}</b>
      </div>
      <p class="top-counts">
        <LinkBadge link={link} />
        <span>
          <Eye />
          <span data-online>{t("online", { n: count(values.online?.people ?? 0) })}</span>
        </span>
        <span>
          <Heart />
          <span data-likes={values.likes?.total ?? 0}>
            {t("likes", { n: count(values.likes?.total ?? 0) })}
          </span>
        </span>
      </p>
      <div class="top-tools">
        <Turns desk={desk} status={status} />
        <a class="plain" href={`/watch/${desk.id}`} target="_blank" rel="noreferrer noopener">
          {t("host.viewer_page")}
        </a>
        <LangSwitch />
      </div>
    </header>
  );
}

function Turns({ desk, status }: { desk: Desk; status: Show["status"] }) {
  return (
    <>
      {status === "scheduled" && (
        <ActButton class="primary" label={t("show.start")} act={() => desk.turn("start")} />
      )}
      {status === "live" && <ActButton label={t("show.pause")} act={() => desk.turn("pause")} />}
      {status === "paused" && (
        <ActButton class="primary" label={t("show.resume")} act={() => desk.turn("resume")} />
      )}
      {status !== "ended" && status !== "scheduled" && (
        <ActButton
          class="danger"
          label={t("show.end")}
          title={t("show.end_hint")}
          confirms
          act={() => desk.turn("end")}
        />
      )}
    </>
  );
}

function Say({ desk }: { desk: Desk }) {
  const said = desk.live.state.value.host.filter((entry) => entry.k === "commentary").slice(-3);
  return (
    <section class="card">
      <h2>{t("say.title")}</h2>
      <ActForm
        class="inline"
        label={t("say.send")}
        clears
        act={({ text = "" }) => desk.say(text.trim())}
      >
        <Field label={t("say.text")} name="text" required maxLength={500} />
      </ActForm>
      <ol class="said">
        {said.map((entry) => (
          <li key={entry.seq}>{entry.text}</li>
        ))}
      </ol>
    </section>
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
