/**
 * Server time on this machine (Cristian's algorithm, the sample with the least round trip wins).
 *
 * Local times are monotonic milliseconds (performance.now()), so a person setting the wall clock
 * moves no countdown. The error is at most half the round trip of the winning sample.
 */

interface Sample {
  roundTrip: number;
  offset: number;
  at: number;
}

/** Samples older than this no longer count: quartz drifts by some ms per minute. */
const SAMPLE_AGE_MAX_MS = 5 * 60_000;
const SAMPLES_MAX = 12;
/** What two clocks may drift apart between two samples, and how late a callback may run. */
const TOLERANCE_MS = 250;

/**
 * Whether two samples can both be right: each leaves its offset uncertain by half its round trip.
 * When they cannot, the local clock stood still (a suspended phone) and the older one is wrong.
 */
function agree(one: Sample, other: Sample): boolean {
  const apart = Math.abs(one.offset - other.offset);
  return apart <= (one.roundTrip + other.roundTrip) / 2 + TOLERANCE_MS;
}

export class ServerClock {
  #samples: Sample[] = [];
  readonly #local: () => number;

  constructor(local: () => number = () => performance.now()) {
    this.#local = local;
  }

  /** Whether now() means anything yet. */
  get synced(): boolean {
    return this.#samples.length > 0;
  }

  /** Local monotonic ms, to be sent as `sent_at`. */
  local(): number {
    return this.#local();
  }

  /** Server time in ms; the wall clock until the first sample. */
  now(): number {
    const best = this.#best();
    return best ? this.#local() + best.offset : Date.now();
  }

  /** A frame said it is `serverNow`; the way here may have taken `slackMs`. */
  seed(serverNow: number, slackMs = 1_000): void {
    const at = this.#local();
    this.#add({ roundTrip: slackMs, offset: serverNow - at, at });
  }

  /** The reply to a `time` command sent at local `sentAt` arrived just now. */
  sample(sentAt: number, serverNow: number): void {
    const at = this.#local();
    if (sentAt > at) return;
    this.#add({ roundTrip: at - sentAt, offset: serverNow - (sentAt + at) / 2, at });
  }

  #add(sample: Sample): void {
    const fresh = this.#samples.filter((old) => sample.at - old.at < SAMPLE_AGE_MAX_MS);
    const agreeing = fresh.filter((old) => agree(old, sample));
    this.#samples = [...agreeing, sample].slice(-SAMPLES_MAX);
  }

  #best(): Sample | undefined {
    let best: Sample | undefined;
    for (const sample of this.#samples) {
      if (best === undefined || sample.roundTrip <= best.roundTrip) best = sample;
    }
    return best;
  }
}
