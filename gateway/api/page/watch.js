// Watch it: turns frames into readings, and shows them as a glance, charts and the table of what is served.

import { Charts } from "./charts.js";
import { servedBy } from "./contract.js";
import { make, say, styled } from "./dom.js";
import { brief, percent, time } from "./figures.js";
import { glance } from "./glance.js";
import { SPAN_S } from "./plot.js";
import * as read from "./readings.js";

const SMOOTHED_S = 10;
const LATELY = "the last two minutes, each second";

/** The right half of the page, and the glance above both. */
export class Watch {
  #readings = [];
  #level = "";
  #past = null;

  constructor(document) {
    const of = (id) => document.getElementById(id);
    Object.assign(this, { glance: of("glance"), title: of("glance-title"), notes: of("glance-notes") });
    Object.assign(this, { figures: of("glance-figures"), status: of("glance-status"), state: of("watch-state") });
    Object.assign(this, { served: of("served"), build: of("build") });
    this.charts = new Charts(of("charts"), (agoS) => say(this.state, agoS > 0 ? `${agoS.toFixed()} s ago` : LATELY));
    this.known = [];
    this.coming = [];
  }

  /** Takes what is known of the catalog: the checkpoints that are served, and those that are still to come. */
  know(checkpoints, colours, coming = []) {
    this.known = checkpoints.map((one) => ({ ...one, colour: colours.get(one.name) }));
    this.coming = coming;
  }

  /** Shows the frames of the last minute, the latest last. */
  show(frames) {
    const latest = frames.at(-1);
    const reading = this.#reading(read.lately(frames, SMOOTHED_S), latest);
    this.#readings = [...this.#readings, reading].filter((one) => one.atS > latest.atS - SPAN_S);
    this.charts.show(this.#readings);
    this.#tell(frames, latest);
  }

  /** Says that the gateway does not answer; what was drawn stays as it was. */
  lost(error, againMs) {
    const title = `The gateway does not answer. Trying again in ${time(againMs)}.`;
    this.#glance({ level: "bad", title, notes: [`Its last word: ${error.message}`] });
    say(this.state, "stopped: no answer to /metrics");
  }

  #reading(frames, latest) {
    const worth = this.#worth(latest);
    const tasks = [...new Set(this.known.flatMap(servedBy))];
    const answers = read.answers(frames);
    const of = (task) => ({ ...read.promises(frames, task), quality: read.effectiveQuality(frames, task, worth) });
    return {
      atS: latest.atS,
      promises: read.promises(frames),
      byTask: new Map(tasks.map((task) => [task, of(task)])),
      p50: read.latency(frames, "tier", 0.5),
      p95: read.latency(frames, "tier", 0.95),
      answers,
      answered: [...answers.values()].reduce((sum, rate) => sum + rate, 0),
      price: read.gauge(latest, "punctual_congestion_price", "task"),
      backlog: read.backlog(latest),
      known: this.known,
    };
  }

  /** Quality in points by checkpoint, as decisions weigh it; of an older gateway, its score on its own data set. */
  #worth(latest) {
    const scores = new Map(this.known.map(({ name, quality }) => [name, quality.value]));
    return read.gauge(latest, "punctual_checkpoint_quality", "checkpoint") ?? scores;
  }

  #tell(frames, latest) {
    const minute = read.promises(frames);
    this.#past ??= read.promises([{ seconds: 1, grown: frames[0].before ?? new Map() }]);
    const up = this.#replicas(latest);
    const missing = up.filter((one) => one.up < one.expected);
    const prices = read.gauge(latest, "punctual_congestion_price", "task") ?? new Map();
    const now = { missing, prices, silent: read.silent(latest), past: this.#past };
    this.#glance(glance({ promises: minute, tiers: this.#byTier(frames), ...now }));
    this.#figures(minute, read.latency(frames, "all", 0.95).get(undefined), up);
    this.#table(frames, latest, new Map(up.map((one) => [one.checkpoint, one])));
    const build = latest.stands.get("punctual_build_info")?.[0]?.labels;
    if (build) say(this.build, `Punctual ${build.version}, catalog ${build.catalog}.`);
  }

  #byTier(frames) {
    const tierOf = new Map(this.known.map(({ name, tier }) => [name, tier]));
    const tiers = new Map();
    for (const [name, rate] of read.answers(frames)) {
      const tier = tierOf.get(name);
      tiers.set(tier, (tiers.get(tier) ?? 0) + rate);
    }
    return tiers;
  }

  /** Replicas up and expected by checkpoint; of an older gateway that does not count them, as the catalog said last. */
  #replicas(latest) {
    const up = read.gauge(latest, "punctual_checkpoint_replicas_up", "checkpoint");
    const expected = read.gauge(latest, "punctual_checkpoint_replicas_expected", "checkpoint");
    return this.known.map(({ name, replicas, load }) => ({
      checkpoint: name,
      up: up ? (up.get(name) ?? 0) : load.replicas_up,
      expected: expected?.get(name) ?? replicas,
    }));
  }

  #glance({ level, title, notes }) {
    this.glance.dataset.level = level;
    say(this.title, title);
    if (notes.join() !== [...this.notes.children].map((one) => one.textContent).join()) {
      this.notes.replaceChildren(...notes.map((note) => make("li", {}, note)));
    }
    if (level !== this.#level) say(this.status, title); // heard when the state changes, not each second
    this.#level = level;
  }

  #figures(minute, p95, up) {
    const sum = (name) => up.reduce((total, one) => total + one[name], 0);
    const idle = minute.asked === 0;
    const told = [
      ["in time", percent(minute.attainment)],
      ["offered", idle ? "0/s" : `${brief(minute.offered)}/s`],
      ["refused", percent(minute.refusedShare)],
      ["p95", time(p95 === undefined || p95 === null ? null : p95 * 1000)],
      ["replicas up", `${sum("up")} of ${sum("expected")}`],
    ];
    const pairs = told.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)));
    this.figures.replaceChildren(...pairs);
  }

  #table(frames, latest, up) {
    const recent = read.lately(frames, SMOOTHED_S);
    const answers = read.answers(recent);
    const p95 = read.latency(frames, "checkpoint", 0.95);
    const backlog = read.backlog(latest);
    const worth = this.#worth(latest);
    const rows = this.known.map(({ name, tier, domain, colour }) => {
      const { up: there, expected } = up.get(name);
      const seconds = (value) => (value === undefined || value === null ? "–" : time(value * 1000));
      const about = make("span", { class: "tier" }, domain ? `${tier}, ${domain} only` : tier);
      const head = make("th", { scope: "row" }, make("i", { class: "swatch" }), `${name} `, about);
      const rate = `${brief(answers.get(name) ?? 0)}/s`;
      const waits = [seconds(p95.get(name)), seconds(backlog?.get(name))];
      const figures = [brief(worth.get(name)), `${there}/${expected}`, rate, ...waits];
      const cells = figures.map((figure) => make("td", { class: "number" }, figure));
      return styled(make("tr", { "data-down": there < expected }, head, ...cells), { "--colour": colour });
    });
    const later = this.coming.map(({ name, tier, state, reason }) => {
      const about = make("span", { class: "tier" }, `${tier}, ${state}: ${reason}`);
      return make("tr", {}, make("th", { scope: "row", colspan: "6" }, `${name} `, about));
    });
    this.served.replaceChildren(...rows, ...later);
  }
}
