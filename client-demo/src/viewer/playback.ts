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
    unload(video);
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
  const retry = new Retry(signal);
  let at = 0; // of a file that ends, in seconds; a live picture has no end and begins at its edge
  const keepPlace = () => {
    if (Number.isFinite(video.duration)) at = video.currentTime;
  };
  const load = () => {
    video.src = url;
    video.currentTime = at;
    begin(video);
  };
  const failed = () => {
    keepPlace();
    tell("broken");
    retry.later(load);
  };
  const rest = () => {
    keepPlace();
    retry.stop();
    unload(video);
  };
  video.addEventListener("playing", () => retry.reset(), { signal });
  video.addEventListener("error", failed, { signal });
  restWhileHidden(rest, load, signal);
  load();
}

/** Play, without sound where the browser allows it only so. */
export function begin(video: HTMLVideoElement): void {
  video.play().catch((error: DOMException) => {
    if (error.name !== "NotAllowedError" || video.muted) return; // the sound button starts it
    video.muted = true;
    begin(video);
  });
}

function unload(video: HTMLVideoElement): void {
  video.removeAttribute("src");
  video.load();
}

/** One try at a time, each after twice the time of the one before. */
class Retry {
  #delay = RETRY_MS;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(signal: AbortSignal) {
    signal.addEventListener("abort", () => this.stop());
  }

  later(again: () => void): void {
    this.stop();
    this.#timer = setTimeout(again, this.#delay);
    this.#delay = Math.min(RETRY_MAX_MS, this.#delay * 2);
  }

  /** It worked: the next try comes soon again. */
  reset(): void {
    this.#delay = RETRY_MS;
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
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
    liveSyncDurationCount: 3,
    liveMaxLatencyDurationCount: 6, // after a rest it goes on at the live edge
  });
  signal.addEventListener("abort", () => hls.destroy());
  mend(hls, Player, video, tell, signal);
  hls.on(Player.Events.MANIFEST_PARSED, () => begin(video));
  hls.loadSource(url);
  hls.attachMedia(video);
}

/**
 * What hls.js cannot mend by itself: it is told to try again for as long as the network is away,
 * and to start a decoder anew, once. What is buffered plays on meanwhile.
 */
function mend(
  hls: Hls,
  Player: typeof Hls,
  video: HTMLVideoElement,
  tell: (picture: Picture) => void,
  signal: AbortSignal,
): void {
  const retry = new Retry(signal);
  let mended = false;
  let cut = false;
  const noticeStall = () => {
    if (cut && video.readyState < HTMLMediaElement.HAVE_FUTURE_DATA) tell("broken");
  };
  video.addEventListener("waiting", noticeStall, { signal });
  restWhileHidden(
    () => {
      retry.stop();
      hls.stopLoad();
    },
    () => reload(hls),
    signal,
  );
  hls.on(Player.Events.FRAG_BUFFERED, () => {
    retry.reset();
    if (cut) tell(video.paused ? "starting" : "playing"); // without a stall nothing else says so
    cut = false;
  });
  hls.on(Player.Events.ERROR, (_, { fatal, type }) => {
    if (!fatal) return;
    if (type === Player.ErrorTypes.NETWORK_ERROR) {
      cut = true;
      noticeStall();
      retry.later(() => reload(hls));
    } else if (type === Player.ErrorTypes.MEDIA_ERROR && !mended) {
      mended = true;
      hls.recoverMediaError();
    } else {
      tell("broken");
    }
  });
}

/** A playlist that never came has to be asked for anew; after one, loading goes on. */
function reload(hls: Hls): void {
  if (hls.levels.length === 0 && hls.url) hls.loadSource(hls.url);
  else hls.startLoad();
}

/** Hidden for a while, `rest`; seen again, `resume`. */
function restWhileHidden(rest: () => void, resume: () => void, signal: AbortSignal): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let resting = false;
  const fallAsleep = () => {
    resting = true;
    rest();
  };
  const turn = () => {
    clearTimeout(timer);
    if (document.hidden && !resting) timer = setTimeout(fallAsleep, HIDDEN_MS);
    if (document.hidden || !resting) return;
    resting = false;
    resume();
  };
  document.addEventListener("visibilitychange", turn, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
}
