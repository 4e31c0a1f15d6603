/** What the server knows of a show in numbers, kept fresh while somebody looks at it. */

import { computed, type ReadonlySignal, signal } from "@preact/signals";
import { ApiError } from "../ui/api";
import type { Desk } from "./desk";
import type { Audit, PinWindow, Pulse, Readiness, Series, ShowSummary } from "./number-types";
import { type Pace, Poll } from "./poll";
import { askFrom, joined } from "./series";

const PULSE_MS = 2_000;
const SERIES_MS = 5_000;
const PINS_MS = 10_000;
/** The server makes an audit only as often as it costs little, and repeats it in between. */
const AUDIT_MS = 5_000;
const READINESS_MS = 5_000;
const SUMMARY_MS = 15_000;

const isVisible = signal(true);

if (typeof document !== "undefined") {
  const look = () => {
    isVisible.value = !document.hidden;
  };
  document.addEventListener("visibilitychange", look);
  look();
}

/** Each of these asks only while a part on screen reads it. */
export class Numbers {
  /** Ids of the sales that were started: without any there is nothing to audit. */
  readonly started: ReadonlySignal<readonly number[]>;
  readonly pulse: Poll<Pulse>;
  readonly series: Poll<Series>;
  readonly pins: Poll<readonly PinWindow[]>;
  readonly audit: Poll<Audit>;
  readonly readiness: Poll<Readiness>;
  readonly summary: Poll<ShowSummary>;

  constructor(desk: Desk) {
    const now = () => desk.live.session.clock.now();
    const poll = <T>(everyMs: number, pace: ReadonlySignal<Pace>, read: () => Promise<T>) =>
      new Poll<T>({ read, everyMs, isVisible, pace, now });
    const isOn = computed(() => desk.status.value === "live" || desk.status.value === "paused");
    const whileOn = computed<Pace>(() => (isOn.value ? "again" : "never"));
    const sinceStart = computed<Pace>(() =>
      desk.status.value === "ended" ? "once" : whileOn.value,
    );
    const always = signal<Pace>("again"); // payments and refunds go on when a show is over
    this.pulse = poll(PULSE_MS, whileOn, () => desk.ask<Pulse>("GET", "/pulse"));
    this.series = poll(SERIES_MS, sinceStart, () => this.#moreSamples(desk));
    this.pins = poll(PINS_MS, sinceStart, async () => {
      return (await desk.ask<{ pins: PinWindow[] }>("GET", "/pins")).pins;
    });
    this.started = computed(() => {
      return desk.sales.value.filter((sale) => sale.status !== "draft").map(({ sale }) => sale);
    });
    const withStock = computed<Pace>(() => {
      return this.started.value.length > 0 && desk.may("audit") ? "again" : "never";
    });
    this.audit = poll(AUDIT_MS, withStock, () => audit(desk));
    this.readiness = poll(READINESS_MS, always, readiness);
    this.summary = poll(SUMMARY_MS, always, () => desk.ask<ShowSummary>("GET", "/summary"));
  }

  async #moreSamples(desk: Desk): Promise<Series> {
    const known = this.series.reading.peek()?.value;
    const after = askFrom(known);
    const more = await desk.ask<Series>("GET", `/series?after=${after}`);
    return known && after > 0 ? joined(known, more) : more;
  }
}

/** The problems are asked for only when there are any. */
async function audit(desk: Desk): Promise<Audit> {
  const short = await desk.ask<Omit<Audit, "problems">>("GET", "/audit?form=short");
  return short.ok ? { ...short, problems: [] } : desk.ask("GET", "/audit?form=full");
}

/** 503 is an answer too: it names the parts. Throws ApiError. */
async function readiness(): Promise<Readiness> {
  try {
    return (await (await fetch("/readyz", { credentials: "omit" })).json()) as Readiness;
  } catch {
    throw new ApiError(0, "network_error", "", "");
  }
}
