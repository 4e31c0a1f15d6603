/** Numbers, money and times as people read them, in the page's language. */

import { locale } from "../i18n";

function digitsOf(currency: string): number {
  const format = new Intl.NumberFormat("en", { style: "currency", currency });
  return format.resolvedOptions().maximumFractionDigits ?? 2;
}

/** `minor` units of `currency` ("CNY", 9900 -> "¥99.00"); the bare number for an odd code. */
export function money(minor: number, currency: string): string {
  try {
    const value = minor / 10 ** digitsOf(currency);
    const style = { style: "currency", currency, currencyDisplay: "narrowSymbol" } as const;
    return new Intl.NumberFormat(locale.value, style).format(value);
  } catch {
    return String(minor);
  }
}

/** "99.5" -> 9950 without floating point; NaN for anything that is no amount of `currency`. */
export function parseMoney(text: string, currency: string): number {
  const digits = digitsOf(currency);
  const match = /^\s*(\d{1,12})(?:[.](\d*))?\s*$/.exec(text);
  const fraction = match?.[2] ?? "";
  if (!match || fraction.length > digits) return Number.NaN;
  return Number(`${match[1]}${fraction.padEnd(digits, "0")}`);
}

/** The reverse of parseMoney, for form fields: 9950 -> "99.50". */
export function plainMoney(minor: number, currency: string): string {
  const digits = digitsOf(currency);
  return (minor / 10 ** digits).toFixed(digits);
}

export function count(value: number): string {
  return new Intl.NumberFormat(locale.value).format(value);
}

/** Milliseconds as m:ss (or h:mm:ss), rounded up: 0:00 means now. */
export function span(ms: number): string {
  const total = Math.max(0, Math.ceil(ms / 1000));
  const [h, m, s] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  const two = (value: number) => String(value).padStart(2, "0");
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

export function dateTime(ms: number): string {
  const style = { dateStyle: "medium", timeStyle: "short" } as const;
  return new Intl.DateTimeFormat(locale.value, style).format(ms);
}

export function timeOfDay(ms: number): string {
  return new Intl.DateTimeFormat(locale.value, { timeStyle: "medium" }).format(ms);
}
