/** How this viewer wants the danmaku; kept on the device. */

import { effect, signal } from "@preact/signals";

/** The share of the lanes that are used. */
export type Density = "quarter" | "half" | "full";

export interface DanmakuPrefs {
  shown: boolean;
  /** Percent. */
  opacity: number;
  density: Density;
}

export const DENSITIES = ["quarter", "half", "full"] as const satisfies readonly Density[];
export const OPACITY_MIN = 30;
export const OPACITY_MAX = 100;
export const DEFAULT_PREFS: DanmakuPrefs = { shown: true, opacity: 100, density: "full" };

const STORED_AS = "livesale.danmaku";

export const prefs = signal(parsePrefs(stored()));

/** For this visit only: after a reload there is nothing in the air to hold still. */
export const paused = signal(false);

effect(() => keep(JSON.stringify(prefs.value)));

export function change(part: Partial<DanmakuPrefs>): void {
  prefs.value = { ...prefs.value, ...part };
}

/** What was stored, every field that is not as it should be replaced by its default. */
export function parsePrefs(text: string | null): DanmakuPrefs {
  const { shown, opacity, density } = objectOf(text);
  return {
    shown: typeof shown === "boolean" ? shown : DEFAULT_PREFS.shown,
    opacity: Number.isFinite(opacity)
      ? Math.min(OPACITY_MAX, Math.max(OPACITY_MIN, Number(opacity)))
      : DEFAULT_PREFS.opacity,
    density: DENSITIES.find((name) => name === density) ?? DEFAULT_PREFS.density,
  };
}

function objectOf(text: string | null): Record<string, unknown> {
  try {
    return { ...JSON.parse(text ?? "") };
  } catch {
    return {};
  }
}

function stored(): string | null {
  try {
    return localStorage.getItem(STORED_AS);
  } catch {
    return null;
  }
}

function keep(text: string): void {
  try {
    localStorage.setItem(STORED_AS, text);
  } catch {
    // Without storage the choice lasts until the page is left.
  }
}
