// The charts of the page: which readings each shows, in whose colours, and what its figures say now.

import { make, say, styled } from "./dom.js";
import { brief, percent, time } from "./figures.js";
import { shade, taskColour } from "./palette.js";
import { Plot } from "./plot.js";
import { TIERS } from "./readings.js";

const perSecond = (value) => (value === null ? "–" : `${brief(value)}/s`);
const inSeconds = (value) => time(value === null ? null : value * 1000);

/** Each chart: its title, its plot's terms, and its series of a moment as [{name, colour, value, dashed}]. */
const CHARTS = [
  {
    title: "Answered in time",
    hint: "of what was offered; refusals count against it",
    none: "Idle: nothing was asked.",
    plot: { scale: "share", format: percent },
    series: ({ byTask }) => tasks(byTask, ({ attainment }) => attainment),
  },
  {
    title: "Offered and in time",
    hint: "requests a second",
    none: "Idle: nothing was asked.",
    plot: { least: 1, format: brief, quietAtZero: true },
    figure: perSecond,
    series: ({ promises }) => [
      { name: "offered", colour: "var(--ink-3)", value: promises.offered, dashed: true },
      { name: "in time", colour: "var(--good)", value: promises.goodput },
    ],
  },
  {
    title: "Latency by tier",
    hint: "line: median; dashed: p95",
    none: "Idle: nothing was answered.",
    plot: { scale: "log", least: 0.01, format: inSeconds },
    series: ({ p50, p95 }) =>
      TIERS.filter((tier) => p50.has(tier)).flatMap((tier) => [
        { name: `${tier} p50`, colour: shade(tier), value: p50.get(tier) },
        { name: "p95", of: tier, colour: shade(tier), value: p95.get(tier), dashed: true },
      ]),
  },
  {
    title: "Share of answers",
    hint: "by checkpoint; the hue is its tier’s",
    none: "Idle: nothing was answered.",
    plot: { scale: "share", layers: true, format: percent },
    series: ({ answers, answered, known }) =>
      known.map(({ name, colour }) => {
        const value = answered > 0 ? (answers.get(name) ?? 0) / answered : null;
        return { name, colour, value, quiet: true };
      }),
  },
  {
    title: "Not kept",
    hint: "requests a second",
    none: "Nothing was late, refused, expired or failed.",
    plot: { least: 1, layers: true, format: brief, quietAtZero: true },
    figure: perSecond,
    series: ({ promises }) => [
      { name: "late", colour: "var(--warn)", value: promises.late },
      { name: "refused", colour: "var(--bad-soft)", value: promises.refused },
      { name: "expired", colour: "var(--warn-soft)", value: promises.expired },
      { name: "failed", colour: "var(--bad)", value: promises.failed },
    ],
  },
  {
    title: "Effective quality",
    hint: "points, over all offered; late, refused or unwritten is 0",
    none: "Idle: nothing was asked.",
    plot: { least: 100, format: brief },
    figure: brief,
    series: ({ byTask }) => tasks(byTask, ({ quality }) => quality),
  },
  {
    title: "Capacity price",
    hint: "points of quality a core-second",
    none: "Uncongested: time asks no price.",
    plot: { least: 1, format: brief, quietAtZero: true },
    figure: brief,
    series: ({ byTask, price }) => price && tasks(byTask, (_, task) => price.get(task) ?? null),
  },
  {
    title: "Queued work",
    hint: "time of the engines, by checkpoint",
    none: "Nothing is queued.",
    plot: { least: 0.01, layers: true, format: inSeconds, quietAtZero: true },
    series: ({ backlog, known }) =>
      backlog && known.map(({ name, colour }) => ({ name, colour, value: backlog.get(name) ?? 0, quiet: true })),
  },
];

function tasks(byTask, valueOf) {
  return [...byTask]
    .sort(([a], [b]) => a.localeCompare(b))
    .map(([task, told], nth) => ({
      name: task,
      colour: taskColour(nth),
      value: valueOf(told, task),
      dashed: nth > 0,
    }));
}

/** All charts in one host. Pointed at, all tell the figures of that moment, and `onMoment` hears how long ago. */
export class Charts {
  #readings = [];
  #atS = null;

  constructor(host, onMoment) {
    this.charts = CHARTS.map((terms) => new Chart(host, terms));
    this.onMoment = onMoment;
    host.addEventListener("pointermove", ({ target, clientX }) => {
      const chart = this.charts.find(({ room }) => room.contains(target));
      this.#point(chart && this.#readings.length ? chart.plot.timeAt(clientX, this.#readings.at(-1).atS) : null);
    });
    host.addEventListener("pointerleave", () => this.#point(null));
  }

  /** Draws what was read in the last two minutes: [{atS, ...reading}], the latest last. */
  show(readings) {
    this.#readings = readings;
    const latest = readings.at(-1);
    const told = this.#atS === null ? latest : nearest(readings, this.#atS);
    for (const chart of this.charts) chart.show(readings, told);
    this.onMoment(latest.atS - told.atS);
  }

  #point(atS) {
    if (atS === this.#atS) return;
    this.#atS = atS;
    this.show(this.#readings);
  }
}

function nearest(readings, atS) {
  const off = (one) => Math.abs(one.atS - atS);
  return readings.reduce((best, one) => (off(one) <= off(best) ? one : best));
}

class Chart {
  constructor(host, { title, hint, none, plot, series, figure }) {
    Object.assign(this, { title, none, series, figure: figure ?? plot.format, zero: plot.quietAtZero ? 0 : -1 });
    this.legend = make("ul", { class: "legend" });
    this.room = make("div", { class: "room" });
    this.quiet = make("p", { class: "quiet" });
    const caption = make("figcaption", {}, make("h3", {}, title), make("span", { class: "hint" }, hint));
    this.node = make("figure", { class: "chart" }, caption, this.room, this.quiet, this.legend);
    host.append(this.node);
    this.plot = new Plot(this.room, plot);
  }

  show(readings, told) {
    const latest = readings.at(-1);
    const now = this.series(told);
    const tells = (value) => value !== null && value > this.zero;
    const quiet = now === null || !readings.some((reading) => this.series(reading)?.some(({ value }) => tells(value)));
    this.node.dataset.quiet = String(quiet);
    say(this.quiet, now === null ? "This gateway does not tell it." : quiet ? this.none : "");
    if (quiet) return this.legend.replaceChildren();
    const figures = now.map((one) => `${one.of ? `${one.of} ` : ""}${one.name} ${this.figure(one.value)}`).join(", ");
    const pointed = told === latest ? null : told.atS;
    this.plot.show(this.#lines(readings), latest.atS, `${this.title}, the last two minutes; now ${figures}`, pointed);
    this.#tell(now.filter((one) => one.value !== null && (!one.quiet || one.value > 0)));
  }

  /** The same series at all times, whoever came or went meanwhile. */
  #lines(readings) {
    const lines = new Map();
    const moments = readings.map((reading) => [reading.atS, this.series(reading) ?? []]);
    for (const [, series] of moments) {
      for (const one of series) {
        const line = lines.get(keyOf(one)) ?? { ...one, points: [] };
        lines.set(keyOf(one), line);
      }
    }
    for (const [atS, series] of moments) {
      const values = new Map(series.map((one) => [keyOf(one), one.value]));
      for (const [key, line] of lines) line.points.push({ atS, value: values.get(key) ?? null });
    }
    return [...lines.values()];
  }

  #tell(series) {
    const items = series.map((one) => {
      const mark = styled(make("i", { class: one.dashed ? "key dashed" : "key" }), { "--colour": one.colour });
      return make("li", {}, mark, `${one.name} `, make("b", {}, this.figure(one.value)));
    });
    this.legend.replaceChildren(...items);
  }
}

function keyOf({ name, of = "" }) {
  return `${of} ${name}`;
}
