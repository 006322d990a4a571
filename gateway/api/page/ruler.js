// The ruler: the budget on a logarithmic scale, and below it each candidate's forecast on the same scale.

import { make, say, styled } from "./dom.js";
import { brief, time } from "./figures.js";
import { placeOf, TICKS_MS } from "./scale.js";
import { verdict } from "./words.js";

const LABEL_PX = 205;

/** Puts the scale's figures under the slider. */
export function drawTicks(host) {
  host.replaceChildren(...TICKS_MS.map((ms) => styled(make("span", {}, time(ms)), { "--at": placeOf(ms) })));
}

/** Shows a decision's candidates, best quality first; `domains` says what each was made for. */
export function drawCandidates(body, decision, { colours, domains, minTier }) {
  const byQuality = (a, b) => b.quality - a.quality || a.checkpoint.localeCompare(b.checkpoint);
  const room = LABEL_PX / Math.max(1, body.clientWidth);
  const rows = [...decision.candidates].sort(byQuality).map((candidate) => {
    const chosen = candidate.checkpoint === decision.checkpoint;
    const said = verdict(candidate, { chosen, domain: domains.get(candidate.checkpoint), minTier });
    const colour = colours.get(candidate.checkpoint) ?? "var(--ink-3)";
    return row(candidate, { chosen, said, decision, room, colour });
  });
  body.replaceChildren(...rows);
}

function row(candidate, { chosen, said, decision, room, colour }) {
  const fits = candidate.verdict === "fits";
  const line = make(
    "tr",
    { role: "row", "data-chosen": chosen, "data-fits": fits, "data-verdict": candidate.verdict },
    make("th", { role: "rowheader", scope: "row" }, ...nameOf(candidate)),
    make("td", { role: "cell", class: "worth", title: "quality, in points" }, brief(candidate.worth)),
    make("td", { role: "cell", class: "said" }, said),
    make("td", { role: "cell", class: "lane" }, ...lane(candidate.forecast_ms, decision, room)),
  );
  return styled(line, { "--colour": colour });
}

function nameOf({ checkpoint, tier }) {
  return [make("i", { class: "swatch" }), `${checkpoint} `, make("span", { class: "tier" }, tier)];
}

/** From the optimistic forecast to the one at the percentile, with the median marked, within the budget's band. */
function lane(forecast, decision, room) {
  const band = styled(make("span", { class: "band" }), { "--at": placeOf(decision.budget_ms) });
  if (!forecast) return [band, make("span", { class: "unseen" }, "no forecast: no replica is up")];
  const surely = `${brief(decision.percentile)} % under ${time(forecast.at_percentile)}`;
  const [from, to] = [placeOf(forecast.least), placeOf(forecast.at_percentile)];
  const { side, at } = besideBar(from, to, placeOf(decision.budget_ms), room);
  const median = make("b", {}, time(forecast.latency));
  const marks = { "--from": from, "--median": placeOf(forecast.latency), "--to": to };
  return [
    band,
    styled(make("span", { class: "reach" }), marks),
    styled(make("span", { class: "median" }), marks),
    styled(make("span", { class: "label", "data-side": side }, median, ` · ${surely}`), { "--at": at }),
  ];
}

/**
 * Where a label that takes `room` of the scale stands beside the bar: {side, at}. On the right where there is room,
 * else on the left, and on the far side of the budget's line where it would lie across it.
 */
export function besideBar(from, to, budget, room) {
  const right = budget >= to && budget <= to + room ? budget : to;
  if (right + room <= 1) return { side: "right", at: right };
  const left = budget <= from && budget >= from - room ? budget : from;
  return left >= room ? { side: "left", at: left } : { side: "right", at: to };
}

/** Moves the budget's line through all lanes at once, ahead of the decision that is being asked for. */
export function moveBudget(host, budgetMs) {
  styled(host, { "--budget": placeOf(budgetMs) });
}

/** The decision in a sentence: the checkpoint's name set off in its colour, the reason after it. */
export function tellDecision(host, name, rest, colour) {
  const text = name ? `${name}: ${rest}` : rest;
  if (host.textContent === text) return;
  if (!name) return say(host, rest);
  const swatch = styled(make("i", { class: "swatch" }), { "--colour": colour });
  host.replaceChildren(swatch, make("strong", {}, name), `: ${rest}`);
}
