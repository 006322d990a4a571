// The gateway over HTTP: what is asked of it and how a request's terms become headers. The only module that fetches.

import { eventsIn } from "./events.js";

/** An answer as it came: whether it is one, its document and headers, and how long the browser waited for it. */
async function ask(path, options = {}) {
  const began = performance.now();
  const response = await fetch(path, { cache: "no-store", ...options });
  return told(response, await response.json().catch(() => null), began);
}

function told(response, document, began) {
  return {
    ok: response.ok && document !== null,
    status: response.status,
    document: document ?? unreadable(response.status),
    headers: response.headers,
    waitedMs: performance.now() - began,
  };
}

/** Likewise of an answer that comes as events: its last document. `write` gets the text of one input as it grows. */
async function askAlong(path, options, write) {
  const began = performance.now();
  const response = await fetch(path, { cache: "no-store", ...options });
  if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
    return told(response, await response.json().catch(() => null), began);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let [found, rest, text] = [[], "", ""];
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    [found, rest] = eventsIn(rest + read.value);
    for (const { name, data } of found) {
      if (name === "done") return told(response, data, began);
      if (name === "error") return { ...told(response, data, began), ok: false, status: data.status };
      write((text += data.text));
    }
  }
  return told(response, null, began);
}

function unreadable(status) {
  const detail = `HTTP status ${status}, without a document`;
  return { code: "unreadable", title: "The answer cannot be read", status, detail };
}

/** The request headers of a set of terms. */
export function headersOf(terms) {
  const headers = {
    "Content-Type": "application/json",
    "X-Latency-SLA-Ms": String(terms.budgetMs),
    "X-SLA-Percentile": String(terms.percentile),
    "X-SLA-Mode": terms.mode,
  };
  if (terms.minTier) headers["X-Min-Tier"] = terms.minTier;
  if (terms.checkpoint) headers["X-Checkpoint"] = terms.checkpoint;
  return headers;
}

/** The body of a set of terms, with the parameters that are named. */
export function bodyOf({ inputs, parameters }) {
  return Object.keys(parameters).length ? { inputs, parameters } : { inputs };
}

/** Sends the text to its task, and asks for the details of what was done; `write` gets what is written meanwhile. */
export function answer(terms, signal, write) {
  const asked = { method: "POST", headers: headersOf(terms), signal };
  if (terms.streams) {
    return askAlong(terms.task, { ...asked, body: JSON.stringify({ ...bodyOf(terms), stream: true }) }, write);
  }
  return ask(`${terms.task}?details=true`, { ...asked, body: JSON.stringify(bodyOf(terms)) });
}

/** Asks what would be decided; nothing is run. */
export function decision(terms, signal) {
  const body = JSON.stringify({ task: terms.task, ...bodyOf(terms) });
  return ask("route", { method: "POST", headers: headersOf(terms), body, signal });
}

/** The catalog: the documents of the checkpoints that are served, and of those that are still to come. */
export async function checkpoints() {
  const told = await ask("checkpoints");
  if (!told.ok) throw new Error(told.document.title);
  return { served: told.document.checkpoints, coming: told.document.coming ?? [] };
}

/** The contract for machines, which says what parameters a task takes. */
export async function contract() {
  const told = await ask("openapi.json");
  if (!told.ok) throw new Error(told.document.title);
  return told.document;
}

/** What the gateway advises for a situation, which is a query. */
export function advice(situation) {
  return ask(`advise?${situation}`, { headers: { Accept: "application/json" } });
}

/** One scrape of every process of the application. */
export async function metrics(signal) {
  const response = await fetch("metrics", { cache: "no-store", signal });
  if (!response.ok) throw new Error(`HTTP status ${response.status}`);
  return response.text();
}
