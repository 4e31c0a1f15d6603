/** All shows of this host, and the form for a new one. */

import { useEffect, useState } from "preact/hooks";
import { t } from "../i18n";
import type { ApiError } from "../ui/api";
import { dateTime } from "../ui/format";
import { attempt, Failure, LangSwitch, Picture } from "../ui/parts";
import { access, createShow, listShows, type ShowFields, setToken } from "./desk";
import { ActForm, Field, localMoment, momentOf, type Values } from "./form";
import { may } from "./permissions";
import type { Show } from "./types";

const DEMO_COVER = "/demo/cover.svg";

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
        {may(access.value, "create_show") && (
          <section class="card">
            <h2>{t("show.create")}</h2>
            <ActForm label={t("show.create")} act={create}>
              <NewShowFieldset like={new URLSearchParams(location.search)} />
            </ActForm>
          </section>
        )}
      </main>
    </>
  );
}

function ShowRow({ show }: { show: Show }) {
  return (
    <li>
      <a href={`/host/${show.show}`}>
        <Picture url={show.cover_url} title={show.title} />
        <span class="show-text">
          <span class="show-title">{show.title}</span>
          <small>{dateTime(show.starts_at || show.created_at)}</small>
        </span>
        <b class={`phase phase-${show.status}`}>{t(`phase.${show.status}`)}</b>
      </a>
    </li>
  );
}

/** A title is enough; `like`: the title, cover_url and playback_url of a show to do again. */
function NewShowFieldset({ like }: { like: URLSearchParams }) {
  return (
    <>
      <TitleField value={like.get("title") ?? ""} />
      <details>
        <summary>{t("show.more")}</summary>
        <div class="act">
          <MediaFields
            cover={like.get("cover_url") ?? DEMO_COVER}
            playback={like.get("playback_url") ?? ""}
            startsAt={0}
          />
        </div>
      </details>
    </>
  );
}

/** The fields of `show`, to be changed. */
export function ShowFieldset({ show }: { show: Show }) {
  const { title, cover_url, playback_url, starts_at } = show;
  return (
    <>
      <TitleField value={title} />
      <MediaFields cover={cover_url} playback={playback_url} startsAt={starts_at} />
    </>
  );
}

function TitleField({ value }: { value: string }) {
  return <Field label={t("show.title")} name="title" value={value} required maxLength={80} />;
}

interface MediaFieldsProps {
  cover: string;
  playback: string;
  startsAt: number;
}

function MediaFields({ cover, playback, startsAt }: MediaFieldsProps) {
  return (
    <>
      <Field label={t("show.cover_url")} name="cover_url" value={cover} maxLength={1024} />
      <Field label={t("show.playback_url")} name="playback_url" value={playback} maxLength={1024} />
      <Field
        label={t("show.starts_at")}
        name="starts_at"
        type="datetime-local"
        value={localMoment(startsAt)}
      />
    </>
  );
}

export function showFields(values: Values): ShowFields {
  const { title = "", cover_url = "", playback_url = "" } = values;
  return { title, cover_url, playback_url, starts_at: momentOf(values.starts_at) };
}
