// Answers that mark places in the text that was sent: whatever has a start and an end. No task is known here by name.

import { make } from "./dom.js";
import { percent } from "./figures.js";

/** The marks of an answer, a list of them or an object that holds one; null if it is another kind of answer. */
export function marksIn(outputs) {
  const marks = Array.isArray(outputs) ? outputs : outputs?.entities;
  return Array.isArray(marks) && marks.every(isMark) ? marks : null;
}

function isMark(part) {
  return Number.isInteger(part?.start) && Number.isInteger(part?.end);
}

/** The text with its marks, each with its kind, and below it what the answer made of the text, if it made something. */
export function marked(text, outputs) {
  const marks = marksIn(outputs);
  const lead = marks.length ? null : make("p", { class: "small" }, "Nothing was found.");
  const own = make("blockquote", { class: "written" }, ...pieces(text, marks));
  const made = outputs.redacted === undefined ? null : make("blockquote", { class: "written" }, outputs.redacted);
  return make("div", { class: "marked" }, lead, own, made);
}

/** The text in pieces, marked and not. Places count characters, of which JavaScript splits some in two. */
function pieces(text, marks) {
  const characters = [...text];
  const found = [];
  let done = 0;
  for (const { start, end, score, ...rest } of marks) {
    if (start < done) continue;
    const kind = rest.entity_group ?? rest.entity ?? "";
    const told = make("small", {}, score === undefined ? ` ${kind}` : ` ${kind} ${percent(score)}`);
    found.push(characters.slice(done, start).join(""), make("mark", {}, characters.slice(start, end).join(""), told));
    done = end;
  }
  return [...found, characters.slice(done).join("")].filter((piece) => piece !== "");
}
