// One advised checkpoint in words: its size, its figures, where it is, and why it is out.

import { percent, time } from "./figures.js";

/** How large it is, such as `small, 66 M`; nothing where that is not known. */
export function amountOf({ size_class: size, parameters }) {
  return parameters === null ? null : `${size}, ${Math.round(parameters / 1e6)} M`;
}

/** Where it is: served here, in a catalog, or published. */
export function whereOf({ status, catalog, source }) {
  return status === "public" ? source : `${status} (${catalog})`;
}

/** Its figures by their names; an estimate is marked with a tilde. */
export function figuresOf({ latency, memory, quality }) {
  const found = [];
  if (latency !== null) {
    const about = latency.measured ? "" : "~";
    found.push([`p${latency.percentile}`, about + time(latency.quantile_ms)]);
    if (latency.utilisation !== null) found.push(["of the cores", about + percent(latency.utilisation)]);
  }
  const size = memory.measured ? "" : "~";
  if (memory.serve_mb !== null) found.push(["to serve", size + megabytes(memory.serve_mb)]);
  if (memory.fine_tune_mb !== null) found.push(["to fine-tune", `~${megabytes(memory.fine_tune_mb)}`]);
  if (quality !== null) found.push([`${quality.metric}, ${quality.data_set}`, String(quality.value)]);
  return found;
}

/** The sentences of the rules by which it is out. */
export function reasonsOut({ why }) {
  return why.filter(({ verdict }) => verdict === "out").map(({ text }) => text);
}

function megabytes(mb) {
  return mb < 1000 ? `${Math.round(mb)} MB` : `${(mb / 1000).toFixed(1)} GB`;
}
