// Advice: asks the gateway about the form's situation, and shows the checkpoints with why each is in or out.

import { advice, contract } from "./ask.js";
import { make, say } from "./dom.js";
import { amountOf, figuresOf, reasonsOut, whereOf } from "./advised.js";

const of = (id) => document.getElementById(id);
const form = of("situation");

/** The form's fields that say something, as a query. */
function query() {
  const fields = [...new FormData(form)].filter(([, value]) => value.trim() !== "");
  return new URLSearchParams(fields.map(([name, value]) => [name, value.trim()]));
}

/** Fills the form with what the address asks for. */
function fill(asked) {
  for (const field of form.elements) {
    if (!field.name || !asked.has(field.name)) continue;
    if (field.type === "checkbox") field.checked = asked.get(field.name) === "true";
    else field.value = asked.get(field.name);
  }
}

/** Asks, and shows what came; the address then says what was asked. */
async function ask() {
  const asked = query();
  history.replaceState(null, "", `?${asked}`);
  of("status").textContent = "Asking …";
  const told = await advice(asked).catch((error) => ({ ok: false, document: { detail: error.message } }));
  of("fault").hidden = told.ok;
  if (!told.ok) {
    say(of("fault"), told.document.detail ?? told.document.title);
    say(of("status"), "");
    return;
  }
  show(told.document);
}

function show({ checklist, right, wrong, unknown }) {
  of("checklist").replaceChildren(...checklist.map(question));
  of("unknown").replaceChildren(...unknown.map((sentence) => make("li", {}, sentence)));
  of("right").replaceChildren(...right.map(checkpoint));
  of("wrong").replaceChildren(...wrong.map(other));
  of("others").hidden = wrong.length === 0;
  say(of("count"), right.length ? "best first" : "no checkpoint; see why each is out");
  of("others").open = right.length === 0;
  say(of("status"), `${right.length} checkpoints are right, ${wrong.length} are out`);
}

function question({ question: asked, answer, why }) {
  return make("div", {}, make("dt", {}, asked), make("dd", {}, answer), make("dd", {}, why));
}

function checkpoint(one) {
  const about = make("small", {}, [one.family, amountOf(one), whereOf(one), one.licence].filter(Boolean).join(" · "));
  const figures = figuresOf(one).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  const why = one.why.map(({ verdict, text }) => make("li", { "data-verdict": verdict }, text));
  return make(
    "li",
    { "data-verdict": one.verdict, "data-name": one.name },
    make("h3", {}, one.name, about),
    make("dl", { class: "figures" }, ...figures),
    make("ul", { class: "why" }, ...why),
    one.entry && make("details", {}, make("summary", {}, "the catalog entry to paste"), make("pre", {}, one.entry)),
  );
}

function other(one) {
  return make("li", {}, make("strong", {}, one.name), ` ${reasonsOut(one).join("; ")}`);
}

/** Offers the tasks that the contract names. */
async function begin() {
  const { paths } = await contract();
  const asked = paths["/advise"].get.parameters.find(({ name }) => name === "task");
  of("task").replaceChildren(...asked.schema.enum.map((name) => make("option", {}, name)));
  fill(new URLSearchParams(location.search));
  await ask();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
await begin().catch((error) => {
  of("fault").hidden = false;
  say(of("fault"), error.message);
});
