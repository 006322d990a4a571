// The answer: what it is, who gave it and why, and where its time went; or the problem, and what can be done about it.

import { bodyOf, headersOf } from "./ask.js";
import { make } from "./dom.js";
import { brief, percent, time } from "./figures.js";
import { marked, marksIn } from "./spans.js";
import { timeline } from "./timeline.js";
import { problem, reason, remedies } from "./words.js";

/** The parts of the panel for an answer that came, and the sentence that a screen reader hears. */
export function answered(told, terms, colour) {
  const { outputs, routing, timings_ms: timings } = told.document;
  const met = routing.sla_met;
  const late = timings.total - routing.budget_ms;
  const title = met ? "In time" : late > 0 ? `Late by ${time(late)}` : "Nothing written in time";
  const lead = make(
    "p",
    { class: "lead" },
    make("span", { class: "mark", "data-good": met }, `${met ? "✓" : "!"} ${title}`),
    " ",
    make("strong", {}, routing.checkpoint),
    ` of tier ${routing.tier} answered in ${time(timings.total)} of your ${time(routing.budget_ms)}: `,
    reason(routing.reason, { budgetMs: routing.budget_ms, percentile: terms.percentile }),
  );
  const output = outputOf(outputs, terms, colour);
  const heard = `${title}. ${routing.checkpoint} answered in ${time(timings.total)}.`;
  const spent = timeline(routing, timings, terms.percentile, colour);
  return { heard, parts: [lead, output, spent, small(told, terms), command(terms)] };
}

/** The outputs of a request with one text: marks in it, scores of its parts, or what is answered to it. */
function outputOf(outputs, { inputs }, colour) {
  if (typeof inputs === "string" && marksIn(outputs[0])) return marked(inputs, outputs[0]);
  return numbers(outputs) ? scored(outputs, inputs, colour) : shown(outputs[0], colour);
}

/** An output by its shape: what is scored by its first text, a text, a vector, or else the document as it came. */
export function shown(output, colour) {
  if (numbers(output)) return vector(output);
  const parts = Array.isArray(output) ? output : Object.values(output);
  const texts = parts.map(textIn);
  const isScored = (part, nth) => typeof part?.score === "number" && texts[nth] !== undefined;
  if (parts.length && parts.every(isScored)) {
    return labels(parts.map(({ score }, nth) => ({ label: texts[nth] || "nothing", score })), colour);
  }
  if (parts.length === 1 && typeof parts[0] === "string") return written(parts[0]);
  if (parts.length === 1 && Array.isArray(parts[0])) return shown(parts[0], colour);
  return make("pre", { class: "output", tabindex: "0" }, JSON.stringify(output, null, 2));
}

/** The first text of a part of an output, such as its label. */
function textIn(part) {
  return Object.values(part ?? {}).find((value) => typeof value === "string");
}

function numbers(output) {
  return Array.isArray(output) && output.length > 0 && output.every((part) => typeof part === "number");
}

const SHOWN_NUMBERS = 8;

function vector(values) {
  const first = values.slice(0, SHOWN_NUMBERS).map((value) => value.toFixed(4)).join(", ");
  return make("pre", { class: "output", tabindex: "0" }, `${values.length} numbers: ${first}, …`);
}

/** A number for each of the texts that inputs hold as a list, as a list with meters. */
function scored(outputs, inputs, colour) {
  const texts = Object.values(inputs).find(Array.isArray) ?? [];
  return labels(outputs.map((score, nth) => ({ label: texts[nth] ?? `text ${nth + 1}`, score })), colour);
}

function labels(scores, colour) {
  const rows = scores.map(({ label, score }) => {
    const meter = make("span", { class: "meter" }, make("i"));
    meter.style.setProperty("--share", String(Math.min(score, 1)));
    meter.style.setProperty("--colour", colour);
    return make("li", {}, make("span", {}, label), meter, make("b", {}, percent(score)));
  });
  return make("ol", { class: "labels" }, ...rows);
}

/** A text that was written. */
export function written(text) {
  return make("blockquote", { class: "written" }, text || "The text is empty.");
}

/** What else the answer tells, for who wants to know. */
function small(told, terms) {
  const { routing, input, generation = [] } = told.document;
  const facts = [
    `forecast ${time(routing.predicted_latency_ms)}`,
    `${brief(terms.percentile)} % under ${time(routing.forecast_quantile_ms)}`,
    `${input.truncated ? `${brief(input.kept)} of ` : ""}${brief(input.tokens)} tokens read`,
    input.windows > 1 ? `in ${input.windows} overlapping windows` : null,
    ...generation.map(writing),
    routing.batch_size > 1 ? `in a batch of ${routing.batch_size}` : null,
    routing.attempts > 1 ? `${routing.attempts} attempts, since a replica was lost` : null,
    `this browser waited ${time(told.waitedMs)}`,
  ];
  return make("p", { class: "small" }, facts.filter(Boolean).join(" · "));
}

function writing({ finish_reason: finish, tokens, beams, pieces, lead }) {
  const ends = { stop: "ended by itself", length: "ended at its length", deadline: "stopped by the deadline" };
  if (finish === "short") return "too short to summarise: the text itself";
  if (lead) return "nothing written in time: the first sentence of the text instead";
  const how = [`${tokens} tokens written`, beams > 1 ? `${beams} beams` : null, pieces > 1 ? `${pieces} pieces` : null];
  return `${how.filter(Boolean).join(", ")}, ${ends[finish] ?? finish}`;
}

const DEFAULTS = { "X-SLA-Percentile": "95", "X-SLA-Mode": "best-effort", "Content-Type": "application/json" };

/** The same request for a terminal, so that what was tried here can be taken away. */
function command(terms) {
  const headers = Object.entries(headersOf(terms)).filter(([name, value]) => DEFAULTS[name] !== value);
  const quoted = JSON.stringify(bodyOf(terms)).replaceAll("'", "'\\''");
  const url = new URL(`${terms.task}?details=true`, document.baseURI);
  const said = headers.map(([name, value]) => `-H '${name}: ${value}'`).join(" ");
  const line = `curl '${url}' \\\n  ${said} \\\n  -d '${quoted}'`;
  const title = make("summary", {}, "The same with curl");
  return make("details", { class: "command" }, title, make("pre", { tabindex: "0" }, line));
}

/** The parts of the panel for a problem, kindly; `act` is called with a remedy's terms when its button is pressed. */
export function refused(told, terms, act) {
  const { document: found } = told;
  const mark = make("span", { class: "mark", "data-good": false }, found.title ?? "No answer");
  const lead = make("p", { class: "lead" }, mark);
  const detail = make("p", {}, sentence(found.detail));
  const meaning = problem(found);
  const buttons = remedies(found, terms).map((remedy) => {
    const button = make("button", { type: "button" }, remedy.label);
    button.addEventListener("click", () => act(remedy, button));
    return button;
  });
  const facts = [`HTTP ${told.status}`, found.code, `request ${told.headers?.get("X-Request-Id") ?? "without an id"}`];
  return {
    heard: `${found.title}. ${found.detail ?? ""}`,
    parts: [
      lead,
      detail,
      meaning ? make("p", { class: "meaning" }, meaning) : null,
      buttons.length ? make("p", { class: "remedies" }, ...buttons) : null,
      make("p", { class: "small" }, facts.join(" · ")),
    ].filter(Boolean),
  };
}

function sentence(text = "") {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) || begun === "" ? begun : `${begun}.`;
}
