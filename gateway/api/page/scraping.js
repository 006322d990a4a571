// Scrapes the gateway each second while the page is seen, and slows down while it does not answer.

import { metrics } from "./ask.js";
import { Counters } from "./counters.js";
import { parse } from "./exposition.js";
import { COUNTERS, GAUGES } from "./readings.js";

const EVERY_MS = 1000;
const PATIENCE_MS = 5000;
const SLOWEST_MS = 30_000;
const KEPT_S = 60;

/** How long until the next try after so many failures in a row. */
export function backOff(failures) {
  return Math.min(SLOWEST_MS, EVERY_MS * 2 ** failures);
}

/** Tells `onFrames` the last minute's frames after each scrape; `onLoss` why one failed, and when it tries again. */
export class Scraping {
  #counters = new Counters();
  #frames = [];
  #failures = 0;
  #timer = 0;
  #wanted = new Set([...COUNTERS, ...GAUGES]);

  constructor(page, onFrames, onLoss) {
    Object.assign(this, { page, onFrames, onLoss });
    page.addEventListener("visibilitychange", () => this.#look());
  }

  /** Begins; a hidden page waits until it is seen. */
  start() {
    this.#look();
  }

  #look() {
    clearTimeout(this.#timer);
    if (this.page.visibilityState === "visible") this.#scrape();
  }

  async #scrape() {
    const began = performance.now();
    try {
      this.#take(parse(await metrics(AbortSignal.timeout(PATIENCE_MS)), this.#wanted), began / 1000);
      this.#failures = 0;
      this.onFrames(this.#frames);
    } catch (error) {
      this.#failures += 1;
      this.onLoss(error, backOff(this.#failures));
    }
    const took = performance.now() - began;
    const wait = this.#failures ? backOff(this.#failures) : Math.max(100, EVERY_MS - took);
    clearTimeout(this.#timer);
    if (this.page.visibilityState === "visible") this.#timer = setTimeout(() => this.#scrape(), wait);
  }

  /** The first scrape only says where the counters stand: it is a frame of no length, with what was counted before. */
  #take(samples, atS) {
    const pick = (names) => new Map([...samples].filter(([name]) => names.includes(name)));
    const before = this.#frames.at(-1);
    const frame = {
      ...(before ? {} : { before: pick(COUNTERS) }),
      atS,
      seconds: before ? atS - before.atS : 0,
      grown: this.#counters.since(pick(COUNTERS), atS),
      stands: pick(GAUGES),
    };
    this.#frames = [...this.#frames, frame].filter((one) => one.atS > atS - KEPT_S);
  }
}
