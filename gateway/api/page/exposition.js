// Reads Prometheus' text format: the samples of the metrics that are wanted, each with its labels. Not what they mean.

const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPED = { "\\n": "\n", '\\"': '"', "\\\\": "\\" };

/**
 * Samples by metric name, in the order of the text. A sample is {series, labels, value}; `series` is its name and
 * labels as written, which is the same from scrape to scrape. Lines that cannot be read are left out.
 */
export function parse(text, wanted) {
  const found = new Map();
  for (const line of text.split("\n")) {
    if (line.startsWith("#")) continue;
    const name = /^[\w:]+/.exec(line)?.[0];
    if (!wanted.has(name)) continue;
    const sample = read(line, name.length);
    if (sample === null) continue;
    if (!found.has(name)) found.set(name, []);
    found.get(name).push(sample);
  }
  return found;
}

function read(line, from) {
  const opens = line[from] === "{";
  const until = opens ? line.lastIndexOf("}") + 1 : from;
  const written = line.slice(until).trim().split(/\s+/)[0];
  const value = number(written);
  if (value === null || (opens && until === 0)) return null;
  return { series: line.slice(0, until), labels: labelsOf(line.slice(from, until)), value };
}

function labelsOf(text) {
  const labels = {};
  for (const [, name, value] of text.matchAll(LABEL)) {
    labels[name] = value.replace(/\\[n"\\]/g, (pair) => ESCAPED[pair]);
  }
  return labels;
}

/** A number as Prometheus writes it: also +Inf, -Inf and NaN; null where it is none. */
export function number(written) {
  if (written === "+Inf") return Infinity;
  if (written === "-Inf") return -Infinity;
  if (written === "NaN") return NaN;
  const value = Number(written);
  return written === "" || Number.isNaN(value) ? null : value;
}
