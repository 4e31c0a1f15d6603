/** The picture and what lies over it: danmaku, the host's line, hearts, the head of the page. */

import { useEffect, useRef } from "preact/hooks";
import { t } from "../i18n";
import type { HostEntry } from "../live";
import { count, dateTime } from "../ui/format";
import { Eye, Person } from "../ui/icons";
import { LangSwitch, LinkBadge, linkText } from "../ui/parts";
import { DanmakuLanes, wantsLessMotion } from "./danmaku";
import { HeartBurst } from "./hearts";
import { danmakuShown, live, sheet, state, values } from "./page";
import { play } from "./playback";

export function Stage() {
  const show = values.value.show;
  return (
    <section class="stage" aria-label={t("watch.title")}>
      {show?.cover_url && <img class="stage-back" src={show.cover_url} alt="" />}
      {show?.playback_url ? (
        <Video url={show.playback_url} poster={show.cover_url} />
      ) : (
        show?.cover_url && <img class="stage-cover" src={show.cover_url} alt={t("watch.cover")} />
      )}
      <Head />
      <Danmaku />
      <HostLine />
      <Hearts />
      <OverNote />
    </section>
  );
}

function Video({ url, poster }: { url: string; poster: string }) {
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => (video.current ? play(video.current, url) : undefined), [url]);
  return (
    // biome-ignore lint/a11y/useMediaCaption: a live picture has no caption track; the host's lines are text
    <video
      ref={video}
      class="stage-cover"
      poster={poster}
      aria-label={t("watch.video")}
      playsInline
      controls
    />
  );
}

function Head() {
  const { show, online } = values.value;
  const me = state.value.me;
  return (
    <header class="head">
      <div class="head-show">
        <h1>{show?.title ?? t("loading")}</h1>
        <p>
          <PhaseLabel />
          <span class="head-count">
            <Eye />
            <span data-online>{t("online", { n: count(online?.people ?? 0) })}</span>
          </span>
          <LinkBadge link={state.value.link} />
        </p>
      </div>
      <div class="head-tools">
        <button type="button" class="who" onClick={() => (sheet.value = "sign_in")}>
          <Person />
          <span>{me ? me.name || me.user : t("sign_in.short")}</span>
        </button>
        <LangSwitch />
      </div>
    </header>
  );
}

function PhaseLabel() {
  const show = values.value.show;
  if (!show) return null;
  if (show.phase === "scheduled" && show.starts_at > 0) {
    return <b class="phase">{t("phase.starts_at", { time: dateTime(show.starts_at) })}</b>;
  }
  const phase = show.phase as "scheduled" | "live" | "paused" | "ended";
  return <b class={`phase phase-${phase}`}>{t(`phase.${phase}`)}</b>;
}

function Danmaku() {
  const box = useRef<HTMLDivElement>(null);
  const shown = danmakuShown.value;
  useEffect(() => {
    if (!box.current || !shown || wantsLessMotion()) return;
    const lanes = new DanmakuLanes(box.current);
    const stop = live.session.onLines((lines) => {
      const me = live.session.state.me?.user;
      if (document.hidden) return;
      for (const line of lines) lanes.show(line.text, line.user === me);
    });
    return () => {
      stop();
      lanes.clear();
    };
  }, [shown]);
  return <div class="lanes" ref={box} aria-hidden="true" />;
}

/** The connection ended for good: said in the middle, not only in the badge. */
function OverNote() {
  const { link } = state.value;
  if (link.state !== "over") return null;
  return (
    <p class="over-note" role="alert">
      {linkText(link)}
    </p>
  );
}

function HostLine() {
  const last = state.value.host.filter(isSaid).at(-1);
  return (
    <div class="host-line" role="status">
      {last && (
        <p key={last.seq}>
          <b>{t("commentary")}</b>
          {last.k === "gap" ? t("gap") : last.text}
        </p>
      )}
    </div>
  );
}

function isSaid(entry: HostEntry): entry is Extract<HostEntry, { k: "commentary" | "gap" }> {
  return entry.k === "commentary" || entry.k === "gap";
}

/** Hearts rise with the room's likes, a few at a time however fast they come. */
function Hearts() {
  const box = useRef<HTMLDivElement>(null);
  const burst = useRef<HeartBurst | null>(null);
  const total = values.value.likes?.total;
  const before = useRef(total);
  useEffect(() => {
    if (box.current && !wantsLessMotion()) burst.current = new HeartBurst(box.current);
  }, []);
  useEffect(() => {
    if (total !== undefined && before.current !== undefined) {
      burst.current?.rise(total - before.current);
    }
    before.current = total;
  }, [total]);
  return <div class="hearts" ref={box} aria-hidden="true" />;
}
