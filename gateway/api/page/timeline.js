// The time line of one request's budget: what was spent where, what is left, and how it compares with the forecast.

import { make, styled } from "./dom.js";
import { brief, time } from "./figures.js";

const CUT = 3.5;

/**
 * The spans of a budget in order, in milliseconds, and how far the drawing reaches. Where the budget is many times what
 * was spent, what is left is cut short, and `cut` says so: in true proportion nothing else could be seen.
 */
export function spansOf(routing, timings) {
  const route = timings.route ?? 0;
  const queue = timings.queue ?? 0;
  const infer = timings.infer ?? 0;
  const other = Math.max(0, timings.total - route - queue - infer);
  const left = routing.budget_ms - timings.total;
  const used = Math.max(timings.total, routing.forecast_quantile_ms ?? 0);
  const cut = routing.budget_ms > CUT * used;
  const reach = cut ? 1.5 * used : Math.max(routing.budget_ms, used);
  const spans = [
    { name: "route", ms: route, title: "reading the request and deciding" },
    { name: "queue", ms: queue, title: "waiting for a core and at the replica" },
    { name: "infer", ms: infer, title: "the engine's run" },
    { name: "other", ms: other, title: "encoding, and the way to the replica and back" },
  ];
  return { spans, left, cut, reach };
}

/** The bar and its figures; the figures are the bar's text. */
export function timeline(routing, timings, percentile, colour) {
  const { spans, left, cut, reach } = spansOf(routing, timings);
  const share = (ms) => Math.min(1, ms / reach);
  const gap = cut ? make("span", { class: "break" }) : null;
  const pieces = spans.map(({ name, ms }) => styled(make("i", { class: name }), { "--share": share(ms) }));
  const quantile = routing.forecast_quantile_ms;
  const marks = [mark("forecast", share(quantile), `${brief(percentile)} % forecast ${time(quantile)}`)];
  const deadline = cut ? 1 : share(routing.budget_ms);
  marks.push(mark("deadline", deadline, `deadline ${time(routing.budget_ms)}`));
  const bar = make("div", { class: "bar", "aria-hidden": "true" }, ...pieces, gap, ...marks);
  const figures = spans.map(({ name, ms, title }) => figure(name, time(ms), title));
  const unspent = () => figure("left", time(left), "of the budget, unspent");
  const rest = left >= 0 ? unspent() : figure("over", time(-left), "after the deadline");
  const list = make("dl", { class: "spans" }, ...figures, rest);
  return styled(make("div", { class: "timeline" }, bar, list), { "--colour": colour });
}

function mark(name, at, label) {
  const side = at > 0.5 ? "left" : "right";
  return styled(make("b", { class: name, "data-side": side }, make("span", {}, label)), { "--at": at });
}

function figure(name, value, title) {
  return make("div", { class: name, title }, make("dt", {}, name), make("dd", {}, value));
}
