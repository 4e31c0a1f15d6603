/** Figures as the console writes them. */

import { locale } from "../i18n";
import { dateTime, money, plainMoney, timeOfDay } from "../ui/format";
import type { Amounts } from "./number-types";
import { currencies } from "./series";

/** 12345 -> "1.2万", "12K": for axes. */
export function compact(value: number): string {
  const style = { notation: "compact", maximumFractionDigits: 1 } as const;
  return new Intl.NumberFormat(locale.value, style).format(value);
}

/** Minor units, without the currency: for axes. */
export function compactMoney(minor: number, currency: string): string {
  return compact(Number(plainMoney(minor, currency)));
}

/** At most one digit behind the point: rates. */
export function rough(value: number): string {
  return new Intl.NumberFormat(locale.value, { maximumFractionDigits: 1 }).format(value);
}

/** A share in 1/1000 -> "12.5%". */
export function perMille(share: number): string {
  const style = { style: "percent", maximumFractionDigits: 1 } as const;
  return new Intl.NumberFormat(locale.value, style).format(share / 1_000);
}

/** All currencies of an amount, the largest first; "" when there is none. */
export function amountsText(amounts: Amounts): string {
  const some = currencies(amounts).filter((currency) => amounts[currency] !== 0);
  return some.map((currency) => money(amounts[currency] ?? 0, currency)).join(" + ");
}

/** The time alone where the day is today's. */
export function moment(ms: number): string {
  const isToday = new Date(ms).toDateString() === new Date().toDateString();
  return isToday ? timeOfDay(ms) : dateTime(ms);
}

/** For axes: "16:45", or "16:45:30" where the labels are less than a minute apart. */
export function axisTime(ms: number, stepS: number): string {
  const seconds = stepS < 60 ? ({ second: "2-digit" } as const) : {};
  const style = { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...seconds } as const;
  return new Intl.DateTimeFormat(locale.value, style).format(ms);
}
