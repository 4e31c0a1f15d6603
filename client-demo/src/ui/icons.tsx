/** Line icons, drawn on a 24 x 24 grid; decorative: the buttons around them have labels. */

import type { JSX } from "preact";

function icon(path: string, filled = false): () => JSX.Element {
  return () => (
    <svg class={filled ? "glyph glyph-filled" : "glyph"} viewBox="0 0 24 24" aria-hidden="true">
      <path d={path} />
    </svg>
  );
}

export const Heart = icon(
  "M12 20.5s-7.5-4.6-9.3-9.2C1.4 7.8 3.4 4.5 6.8 4.5c2.2 0 3.9 1.2 5.2 3.1 1.3-1.9 3-3.1 5.2-3.1 3.4 0 5.4 3.3 4.1 6.8-1.8 4.6-9.3 9.2-9.3 9.2z",
  true,
);
export const Bag = icon("M5 8h14l-1 12.5H6L5 8zM8.5 8V7a3.5 3.5 0 0 1 7 0v1");
export const Receipt = icon("M6 3h12v18l-3-2-3 2-3-2-3 2V3zM9 8h6M9 12h6");
export const Send = icon("M4 12 20 4l-5 16-3.5-6.5L4 12zM11.5 13.5 20 4");
export const Eye = icon(
  "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12zM12 9a3 3 0 1 1 0 6 3 3 0 0 1 0-6z",
);
export const Bubble = icon("M4 5h16v11H10l-4.5 3.5V16H4V5zM8 9h8M8 12h5");
export const Person = icon(
  "M12 4a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM4.5 20c.8-4 3.8-6 7.5-6s6.700 2 7.500 6",
);
export const Bolt = icon("M13 2 4.500 13.500h6L9.500 22 19 9.800h-6.300L13 2z", true);
export const Chevron = icon("m9.500 5.500 6.500 6.500-6.500 6.500");
export const Down = icon("m5.500 9.500 6.500 6.500 6.500-6.500");
export const Sound = icon(
  "M4 9.500v5h3.500L12 18.500v-13L7.500 9.500H4zM15.500 9a4.200 4.200 0 0 1 0 6M18 6.500a7.800 7.800 0 0 1 0 11",
);
