// A plot of the last two minutes in SVG: lines, or layers upon one another. Knows times and values, not what they are.

import { draw } from "./dom.js";

export const SPAN_S = 120;
const GAP_S = 4;
const HEIGHT = 104;
const EDGE = { top: 8, right: 2, bottom: 4, left: 46 };

/** One plot in its host, redrawn as a whole: some hundred points are cheap. */
export class Plot {
  /** `scale` is "linear", "share" (0 to 1) or "log"; `least` is what it reaches at least; `format` writes figures. */
  constructor(host, { scale = "linear", least = 1, layers = false, format }) {
    Object.assign(this, { host, scale, least, layers, format });
    this.picture = draw("svg", { role: "img", height: HEIGHT, class: "plot" });
    host.append(this.picture);
  }

  /**
   * Draws series [{name, colour, points: [{atS, value}], dashed}] as of `nowS`, with a line at `pointedS` if that is a
   * moment; says `label` of it to who cannot see.
   */
  show(series, nowS, label, pointedS = null) {
    const width = Math.max(160, Math.round(this.host.clientWidth));
    const drawn = this.layers ? layered(series) : series;
    const [low, high] = this.#range(drawn);
    const x = (atS) => EDGE.left + (width - EDGE.left - EDGE.right) * (1 - (nowS - atS) / SPAN_S);
    const y = (value) => EDGE.top + (HEIGHT - EDGE.top - EDGE.bottom) * (1 - this.#share(value, low, high));
    const parts = [...this.#grid(low, high, width, y)];
    for (const one of drawn) parts.push(...this.#one(one, x, y));
    if (pointedS !== null) {
      const at = x(pointedS);
      parts.push(draw("line", { class: "moment", x1: at, x2: at, y1: EDGE.top, y2: HEIGHT - EDGE.bottom }));
    }
    this.picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.picture.setAttribute("width", width);
    this.picture.setAttribute("aria-label", label);
    this.picture.replaceChildren(...parts);
  }

  /** The moment under a pointer, as of `nowS`; null beside the plot. */
  timeAt(clientX, nowS) {
    const { left, width } = this.picture.getBoundingClientRect();
    const share = (clientX - left - EDGE.left) / (width - EDGE.left - EDGE.right);
    return share >= 0 && share <= 1 ? nowS - SPAN_S * (1 - share) : null;
  }

  #range(series) {
    if (this.scale === "share") return [0, 1];
    const values = series.flatMap(({ points }) => points.map(({ value }) => value)).filter((value) => value > 0);
    const most = Math.max(this.least, ...values);
    if (this.scale === "linear") return [0, roundAbove(most)];
    const low = 10 ** Math.floor(Math.log10(Math.min(this.least, ...values)));
    return [low, Math.max(low * 100, 10 ** Math.ceil(Math.log10(most)))];
  }

  #share(value, low, high) {
    if (this.scale === "log") return Math.log(Math.max(value, low) / low) / Math.log(high / low);
    return (value - low) / (high - low);
  }

  *#grid(low, high, width, y) {
    for (const value of this.scale === "log" ? decades(low, high) : [low, (low + high) / 2, high]) {
      const at = y(value);
      yield draw("line", { class: "grid", x1: EDGE.left, x2: width, y1: at, y2: at });
      yield draw("text", { class: "tick", x: EDGE.left - 6, y: at + 3.5, "text-anchor": "end" }, this.format(value));
    }
  }

  *#one({ colour, points, dashed, under }, x, y) {
    for (const run of runs(points)) {
      const line = run.map(({ atS, value }) => `${x(atS).toFixed(1)},${y(value).toFixed(1)}`);
      if (under) {
        const floor = run.map(({ atS, below }) => `${x(atS).toFixed(1)},${y(below).toFixed(1)}`).reverse();
        yield tinted(draw("polygon", { class: "layer", points: [...line, ...floor].join(" ") }), "fill", colour);
      } else if (run.length === 1) {
        const [cx, cy] = line[0].split(",");
        yield tinted(draw("circle", { cx, cy, r: 1.6 }), "fill", colour);
      } else {
        const kind = dashed ? "line dashed" : "line";
        yield tinted(draw("polyline", { class: kind, points: line.join(" ") }), "stroke", colour);
      }
    }
  }
}

function tinted(node, property, colour) {
  node.style.setProperty(property, colour);
  return node;
}

/** Each series on top of those before it. All have a point at the same times. */
function layered(series) {
  const floors = new Map();
  return series.map((one) => ({
    ...one,
    under: true,
    points: one.points.map(({ atS, value }) => {
      const below = floors.get(atS) ?? 0;
      const top = value === null ? null : below + value;
      if (top !== null) floors.set(atS, top);
      return { atS, value: top, below };
    }),
  }));
}

/** The powers of ten from `low` to `high`, or every second or third where they are many. */
function decades(low, high) {
  const count = Math.round(Math.log10(high / low));
  const step = Math.ceil(count / 4);
  return Array.from({ length: Math.floor(count / step) + 1 }, (_, nth) => low * 10 ** (nth * step));
}

/** The points that hang together: a line is not drawn through what was not measured. */
export function runs(points) {
  const found = [];
  let run = [];
  for (const point of points) {
    const known = point.value !== null && Number.isFinite(point.value);
    if (run.length && (!known || point.atS - run.at(-1).atS > GAP_S)) {
      found.push(run);
      run = [];
    }
    if (known) run.push(point);
  }
  return run.length ? [...found, run] : found;
}

/** The next figure above that is easily halved: 1, 2, 4, 6, 10, 20, ... */
export function roundAbove(value) {
  const size = 10 ** Math.floor(Math.log10(value));
  return size * [1, 2, 4, 6, 10].find((step) => step * size >= value * (1 - 1e-9));
}
