/** Texts of the pages. A key missing in a dictionary fails the type check. */

import { computed, effect, signal } from "@preact/signals";
import { en } from "./en";
import { type Dictionary, type Key, zh } from "./zh";

export type Lang = "zh" | "en";
export type { Key } from "./zh";

const DICTIONARIES: Readonly<Record<Lang, Dictionary>> = { zh, en };
const LOCALES: Readonly<Record<Lang, string>> = { zh: "zh-CN", en: "en" };
const STORED_AS = "livesale.lang";

export const lang = signal<Lang>(storedLang());
export const locale = computed(() => LOCALES[lang.value]);

/** The text of `key` in the page's language, `{name}` parts filled from `values`. */
export function t(key: Key, values: Readonly<Record<string, string | number>> = {}): string {
  return DICTIONARIES[lang.value][key].replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/** The server's texts come in both languages. */
export function textOf(texts: { zh: string; en: string }): string {
  return texts[lang.value];
}

export function switchLang(): void {
  lang.value = lang.value === "zh" ? "en" : "zh";
  try {
    localStorage.setItem(STORED_AS, lang.value);
  } catch {
    // Without storage the choice lasts until the page is left.
  }
}

/** Keep <html lang> right: fonts and screen readers go by it. */
export function followLang(): void {
  effect(() => {
    document.documentElement.lang = locale.value;
  });
}

function storedLang(): Lang {
  try {
    return localStorage.getItem(STORED_AS) === "en" ? "en" : "zh";
  } catch {
    return "zh";
  }
}
