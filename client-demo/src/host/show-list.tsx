/** All shows of this host, and the form for a new one. */

import { useEffect, useState } from "preact/hooks";
import { t } from "../i18n";
import type { ApiError } from "../ui/api";
import { dateTime } from "../ui/format";
import { attempt, Failure, LangSwitch } from "../ui/parts";
import { createShow, listShows, type ShowFields, setToken } from "./desk";
import { ActForm, Field, localMoment, momentOf, type Values } from "./form";
import type { Show } from "./types";

export function ShowList() {
  const [shows, setShows] = useState<readonly Show[] | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  useEffect(() => {
    attempt(async () => setShows(await listShows())).then(setError);
  }, []);
  const create = async (values: Values) => {
    const show = await createShow(showFields(values));
    location.assign(`/host/${show.show}`);
  };
  return (
    <>
      <header class="top">
        <h1>{t("host.console")}</h1>
        <div class="top-tools">
          <LangSwitch />
          <button type="button" class="plain" onClick={() => setToken("")}>
            {t("host.sign_out")}
          </button>
        </div>
      </header>
      <main class="shows">
        <section class="card">
          <h2>{t("host.shows")}</h2>
          <Failure error={error} />
          {shows?.length === 0 && <p class="empty">{t("host.no_shows")}</p>}
          <ul class="show-list">
            {shows?.map((show) => (
              <ShowRow key={show.show} show={show} />
            ))}
          </ul>
        </section>
        <section class="card">
          <h2>{t("show.create")}</h2>
          <ActForm label={t("show.create")} act={create}>
            <ShowFieldset />
          </ActForm>
        </section>
      </main>
    </>
  );
}

function ShowRow({ show }: { show: Show }) {
  return (
    <li>
      <a href={`/host/${show.show}`}>
        <span class="show-title">{show.title}</span>
        <b class={`phase phase-${show.status}`}>{t(`phase.${show.status}`)}</b>
        <small>{dateTime(show.starts_at || show.created_at)}</small>
      </a>
    </li>
  );
}

/** The fields of a show, filled from `show` when it is edited. */
export function ShowFieldset({ show }: { show?: Show }) {
  return (
    <>
      <Field
        label={t("show.title")}
        name="title"
        value={show?.title ?? ""}
        required
        maxLength={80}
      />
      <Field
        label={t("show.cover_url")}
        name="cover_url"
        value={show?.cover_url ?? "/demo/cover.svg"}
        maxLength={1024}
      />
      <Field
        label={t("show.playback_url")}
        name="playback_url"
        value={show?.playback_url ?? ""}
        maxLength={1024}
      />
      <Field
        label={t("show.starts_at")}
        name="starts_at"
        type="datetime-local"
        value={localMoment(show?.starts_at ?? 0)}
      />
    </>
  );
}

export function showFields(values: Values): ShowFields {
  const { title = "", cover_url = "", playback_url = "" } = values;
  return { title, cover_url, playback_url, starts_at: momentOf(values.starts_at) };
}
