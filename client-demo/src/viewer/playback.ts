/** How a playback URL reaches a <video>: the one place to change when a player library comes. */

/**
 * Show `url` in `video`; returns how to stop. Plain files and, where the browser has it, native
 * HLS. Playing starts muted, as browsers demand of pages that play by themselves.
 */
export function play(video: HTMLVideoElement, url: string): () => void {
  video.muted = true;
  video.src = url;
  video.play().catch(() => {
    // The person starts it with the controls.
  });
  return () => {
    video.pause();
    video.removeAttribute("src");
    video.load();
  };
}
