/** The picture and what lies over it: danmaku, the host's line, hearts, the head of the page. */

import { computed, effect } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { t } from "../i18n";
import type { HostEntry } from "../live";
import { count, dateTime } from "../ui/format";
import { Eye, Person, Sound } from "../ui/icons";
import { LangSwitch, LinkBadge, linkText, Picture } from "../ui/parts";
import { Celebration } from "./celebration";
import { DanmakuLanes, wantsLessMotion } from "./danmaku";
import { HeartBurst, OwnTaps } from "./hearts";
import { front, like, link, linkLive, live, me, ownLikes, sheet, state, values } from "./page";
import { begin, type Picture as LivePicture, play } from "./playback";
import { paused, prefs } from "./prefs";
import { CountIn } from "./sale-card";
import { Stale } from "./stale";

export function Stage() {
  const show = values.value.show;
  return (
    <section class="stage" aria-label={t("watch.title")}>
      {show?.cover_url && <img class="stage-back" src={show.cover_url} alt="" />}
      {/* biome-ignore lint/a11y/noStaticElementInteractions: the like button does the same */}
      <div class="screen" onDblClick={likePicture}>
        <Screen />
        <Danmaku />
        <Hearts />
        {front.value && <CountIn sale={front.value} />}
      </div>
      <Head />
      <Celebration />
      <OverNote />
    </section>
  );
}

/** Two quick taps on what lies over the picture are that button's. */
function likePicture({ target }: { target: EventTarget | null }): void {
  if (target instanceof Element && !target.closest("button")) like();
}

/** The live picture; the cover where there is none. */
function Screen() {
  const show = values.value.show;
  if (show?.playback_url) {
    return <Video key={show.playback_url} url={show.playback_url} poster={show.cover_url} />;
  }
  return show?.cover_url ? (
    <img class="stage-cover" src={show.cover_url} alt={t("watch.cover")} />
  ) : null;
}

function Video({ url, poster }: { url: string; poster: string }) {
  const video = useRef<HTMLVideoElement>(null);
  const [picture, setPicture] = useState<LivePicture>("starting");
  const [tries, setTries] = useState(0);
  const [muted, setMuted] = useState(true);
  useEffect(() => {
    return video.current ? play(video.current, url, setPicture) : undefined;
  }, [url, tries]);
  const sound = () => {
    if (!video.current) return;
    video.current.muted = false;
    begin(video.current);
  };
  return (
    <>
      {/* biome-ignore lint/a11y/useMediaCaption: a live picture has no captions; the host's lines are text */}
      <video
        ref={video}
        class="stage-cover"
        poster={poster}
        aria-label={t("watch.video")}
        onVolumeChange={(event) => setMuted(event.currentTarget.muted)}
        playsInline
      />
      {muted && (picture === "playing" || picture === "starting") && (
        <button type="button" class="sound" onClick={sound}>
          <Sound />
          {t("video.sound")}
        </button>
      )}
      <Trouble picture={picture} onRetry={() => setTries(tries + 1)} />
    </>
  );
}

/** No picture: what is wrong and what helps. */
function Trouble({ picture, onRetry }: { picture: LivePicture; onRetry: () => void }) {
  if (picture !== "broken" && picture !== "blocked") return null;
  const blocked = picture === "blocked";
  return (
    <p class="video-trouble" role="status">
      {t("video.broken")}
      <button type="button" onClick={blocked ? () => location.reload() : onRetry}>
        {t(blocked ? "video.reload" : "video.retry")}
      </button>
    </p>
  );
}

function Head() {
  const { show, online } = values.value;
  const name = me.value ? me.value.name || me.value.user : t("sign_in.short");
  const people = count(online?.people ?? 0);
  return (
    <header class="head">
      <div class="head-show">
        <Picture url={show?.cover_url ?? ""} title={show?.title ?? ""} />
        <div>
          <h1>{show?.title ?? t("loading")}</h1>
          <p>
            <PhaseLabel />
            <LinkBadge link={link.value} />
          </p>
        </div>
      </div>
      <div class="head-tools">
        <span class="head-count" title={t("online", { n: people })}>
          <Eye />
          <span class="sr-only">{t("online", { n: "" })}</span>
          <b key={people} class="fade" data-online>
            {people}
          </b>
        </span>
        <button type="button" class="who" onClick={() => (sheet.value = "sign_in")}>
          <Person />
          <span>{name}</span>
        </button>
        <LangSwitch />
      </div>
      <Stale />
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

const hostEntries = computed(() => state.value.host);

function Danmaku() {
  const box = useRef<HTMLDivElement>(null);
  const { shown, opacity } = prefs.value;
  useEffect(
    () => (box.current && shown && !wantsLessMotion() ? fill(box.current) : undefined),
    [shown],
  );
  const mode = shown ? (paused.value ? "paused" : "on") : "off";
  return (
    <div
      class="lanes"
      ref={box}
      data-danmaku={mode}
      style={{ opacity: opacity / 100 }}
      aria-hidden="true"
    />
  );
}

/** Let the room's lines fly through `box`; returns how to stop. */
function fill(box: HTMLElement): () => void {
  const lanes = new DanmakuLanes(box);
  const stops = [
    live.session.onLines((lines) => {
      if (document.hidden) return;
      for (const line of lines) lanes.show(line, line.user === me.value?.user);
    }),
    effect(() => {
      lanes.density = prefs.value.density;
      lanes.pause(paused.value);
    }),
    dropRemoved(lanes),
    () => lanes.close(),
  ];
  return () => {
    for (const stop of stops) stop();
  };
}

/** What a moderator took out leaves the air too, once for every event. */
function dropRemoved(lanes: DanmakuLanes): () => void {
  const seen = new WeakSet<HostEntry>();
  return effect(() => {
    for (const entry of hostEntries.value) {
      if (seen.has(entry)) continue;
      seen.add(entry);
      if (entry.k === "line_removed") lanes.remove((line) => line.id === entry.line);
      if (entry.k === "user_removed") lanes.remove((line) => line.user === entry.user);
    }
  });
}

/** The connection ended for good: said in the middle, not only in the badge. */
function OverNote() {
  if (link.value.state !== "over") return null;
  return (
    <p class="over-note" role="alert">
      {linkText(link.value)}
    </p>
  );
}

export function HostLine() {
  const last = hostEntries.value.filter(isSaid).at(-1);
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

/** Own likes rise at once; those of the room as its total grows, own ones not a second time. */
function Hearts() {
  const box = useRef<HTMLDivElement>(null);
  const burst = useRef<HeartBurst | null>(null);
  const total = values.value.likes?.total;
  const own = ownLikes.value;
  const seen = useRef({ total, own, taps: new OwnTaps() });
  useEffect(() => {
    if (box.current && !wantsLessMotion()) burst.current = new HeartBurst(box.current);
  }, []);
  useEffect(() => {
    const tapped = own - seen.current.own;
    burst.current?.rise(tapped);
    if (linkLive.value) seen.current.taps.sent(tapped, performance.now());
    seen.current.own = own;
  }, [own]);
  useEffect(() => {
    const grown = Math.max(0, (total ?? 0) - (seen.current.total ?? total ?? 0));
    burst.current?.rise(seen.current.taps.others(grown, performance.now()));
    seen.current.total = total;
  }, [total]);
  return <div class="hearts" ref={box} aria-hidden="true" />;
}
