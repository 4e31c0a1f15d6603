/**
 * How a playback URL reaches a <video>: plain files and, where the browser has it, native HLS by
 * `src`; other HLS by hls.js, which is fetched only then.
 */

import type Hls from "hls.js/light";

/** `broken`: no picture, another try may help. `blocked`: only a reload of the page may. */
export type Picture = "starting" | "playing" | "broken" | "blocked";

export interface Abilities {
  nativeHls: boolean;
  mediaSource: boolean;
}

export type Way = "src" | "hls" | "none";

/** Hidden for so long, the page stops fetching video. */
const HIDDEN_MS = 60_000;
const RETRY_MS = 1_000;
const RETRY_MAX_MS = 10_000;

export function wayOf(url: string, { nativeHls, mediaSource }: Abilities): Way {
  const isHls = /\.m3u8(?:[?#]|$)/i.test(url);
  if (!isHls || nativeHls) return "src";
  return mediaSource ? "hls" : "none";
}

/**
 * Show `url` in `video`, muted, as browsers demand of pages that play by themselves; `tell` hears
 * how it goes. Returns how to stop.
 */
export function play(
  video: HTMLVideoElement,
  url: string,
  tell: (picture: Picture) => void,
): () => void {
  const ending = new AbortController();
  const { signal } = ending;
  video.muted = true;
  video.addEventListener("playing", () => tell("playing"), { signal });
  document.addEventListener(
    "securitypolicyviolation",
    (event) => event.blockedURI.startsWith(originOf(url)) && tell("blocked"),
    { signal },
  );
  start(video, url, tell, signal);
  return () => {
    ending.abort();
    video.pause();
    video.removeAttribute("src");
    video.load();
  };
}

function start(
  video: HTMLVideoElement,
  url: string,
  tell: (picture: Picture) => void,
  signal: AbortSignal,
): void {
  const way = wayOf(url, abilities(video));
  if (way === "none") tell("broken");
  if (way === "src") playSource(video, url, tell, signal);
  if (way === "hls") playHls(video, url, tell, signal).catch(() => tell("broken"));
}

function abilities(video: HTMLVideoElement): Abilities {
  return {
    nativeHls: video.canPlayType("application/vnd.apple.mpegurl") !== "",
    mediaSource: "MediaSource" in window || "ManagedMediaSource" in window,
  };
}

function originOf(url: string): string {
  return new URL(url, location.href).origin;
}

function playSource(
  video: HTMLVideoElement,
  url: string,
  tell: (picture: Picture) => void,
  signal: AbortSignal,
): void {
  video.addEventListener("error", () => tell("broken"), { signal });
  video.src = url;
  begin(video);
}

function begin(video: HTMLVideoElement): void {
  video.play().catch(() => {
    // Not allowed yet: the sound button starts it.
  });
}

async function playHls(
  video: HTMLVideoElement,
  url: string,
  tell: (picture: Picture) => void,
  signal: AbortSignal,
): Promise<void> {
  const { default: Player } = await import("hls.js/light");
  if (signal.aborted) return;
  const hls = new Player({
    enableWorker: false, // a worker comes as blob:, which the Content-Security-Policy forbids
    lowLatencyMode: true,
    maxBufferLength: 10,
    backBufferLength: 10,
  });
  signal.addEventListener("abort", () => hls.destroy());
  mend(hls, Player, tell, signal);
  restWhileHidden(hls, signal);
  hls.on(Player.Events.MANIFEST_PARSED, () => begin(video));
  hls.loadSource(url);
  hls.attachMedia(video);
}

/**
 * What hls.js cannot mend by itself: it is told to try again for as long as the network is away,
 * and to start a decoder anew, once.
 */
function mend(
  hls: Hls,
  Player: typeof Hls,
  tell: (picture: Picture) => void,
  signal: AbortSignal,
): void {
  let delay = RETRY_MS;
  let mended = false;
  hls.on(Player.Events.FRAG_BUFFERED, () => {
    delay = RETRY_MS;
  });
  hls.on(Player.Events.ERROR, (_, { fatal, type }) => {
    if (!fatal) return;
    if (type === Player.ErrorTypes.MEDIA_ERROR && !mended) {
      mended = true;
      hls.recoverMediaError();
      return;
    }
    tell("broken");
    if (type !== Player.ErrorTypes.NETWORK_ERROR) return;
    setTimeout(() => !signal.aborted && reload(hls), delay);
    delay = Math.min(RETRY_MAX_MS, delay * 2);
  });
}

/** A playlist that never came has to be asked for anew; after one, loading goes on. */
function reload(hls: Hls): void {
  if (hls.levels.length === 0 && hls.url) hls.loadSource(hls.url);
  else hls.startLoad();
}

function restWhileHidden(hls: Hls, signal: AbortSignal): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const turn = () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(() => hls.stopLoad(), HIDDEN_MS);
    else hls.startLoad();
  };
  document.addEventListener("visibilitychange", turn, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
}
