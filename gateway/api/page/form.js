// The form: reads the request's terms from its fields, and keeps slider and number field in step.

import { servedBy } from "./contract.js";
import { make, say } from "./dom.js";
import { time } from "./figures.js";
import { hint, inputsIn, textOf } from "./lines.js";
import { field, fill, named } from "./parameters.js";
import { msAt, placeOf, STEPS } from "./scale.js";

/** The fields of the page's one form. */
export class Form {
  constructor(document) {
    const of = (id) => document.getElementById(id);
    this.node = of("form");
    this.text = of("text");
    this.slider = of("slider");
    this.amount = of("amount");
    this.examples = of("examples");
    this.hint = of("hint");
    this.choice = of("tasks");
    this.parameters = of("parameters");
    this.pin = of("pin");
    this.send = of("send");
    this.catalog = [];
    this.tasks = [];
    this.slider.addEventListener("input", () => this.#budget(msAt(this.slider.value / STEPS), this.amount));
    this.amount.addEventListener("input", () => this.#budget(this.amount.valueAsNumber, this.slider));
    this.choice.addEventListener("change", () => this.#taskChanged());
    this.text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.node.requestSubmit();
    });
    this.set({ budgetMs: this.amount.valueAsNumber });
  }

  /** What is asked for now. */
  terms() {
    const fields = new FormData(this.node);
    return {
      task: fields.get("task"),
      inputs: inputsIn(this.text.value, this.#task()?.parts ?? null),
      budgetMs: this.amount.valueAsNumber,
      mode: fields.get("mode"),
      percentile: Number(fields.get("percentile")) || 95,
      minTier: fields.get("minTier") || null,
      checkpoint: fields.get("checkpoint") || null,
      parameters: named(this.parameters),
      streams: this.#task()?.streams ?? false,
    };
  }

  /** Sets some of the terms, as a remedy does. */
  set({ budgetMs, mode }) {
    if (budgetMs !== undefined) {
      this.#budget(budgetMs, this.slider);
      this.amount.value = String(budgetMs);
    }
    if (mode !== undefined) for (const radio of this.#all("mode")) radio.checked = radio.value === mode;
  }

  /** Whether what is in the fields can be sent at all. */
  isComplete() {
    return this.tasks.length > 0 && this.text.value.trim() !== "" && this.amount.valueAsNumber > 0;
  }

  /** Offers the checkpoints and tasks there are, and keeps what was chosen and typed where it is still offered. */
  offer(checkpoints, tasks) {
    const [chosen, typed] = [this.#task()?.name, named(this.parameters)];
    const isKept = tasks.some(({ name }) => name === chosen);
    this.catalog = checkpoints;
    this.tasks = tasks;
    this.choice.replaceChildren(...tasks.map(({ name }, nth) => radio(name, isKept ? name === chosen : nth === 0)));
    this.#taskChanged({ keepText: isKept });
    if (isKept) fill(this.parameters, typed);
  }

  #all(name) {
    return this.node.querySelectorAll(`input[name=${name}]`);
  }

  #budget(ms, follower) {
    if (!(ms > 0)) return;
    if (follower === this.slider) this.slider.value = String(Math.round(placeOf(ms) * STEPS));
    else this.amount.value = String(ms);
    this.slider.setAttribute("aria-valuetext", time(ms));
  }

  #task() {
    const chosen = new FormData(this.node).get("task");
    return this.tasks.find(({ name }) => name === chosen);
  }

  #taskChanged({ keepText = false } = {}) {
    const task = this.#task();
    if (task === undefined) return;
    const served = this.catalog.filter((one) => servedBy(one).includes(task.name));
    const domains = [...new Set(served.map(({ domain }) => domain).filter(Boolean))];
    const fields = task.parameters.map((one) => (one.name === "domain" ? field(one, domains) : field(one)));
    this.parameters.replaceChildren(...fields);
    offerIn(this.pin, served.map(({ name }) => name));
    const { parts = null } = task;
    say(this.hint, hint(parts));
    this.hint.hidden = parts === null;
    const ready = textsOf(task);
    const others = this.tasks.flatMap(textsOf);
    const isReady = this.text.value === "" || others.some(({ text }) => text === this.text.value);
    if (!keepText && isReady && ready.length) this.#take(ready[0]);
    this.examples.replaceChildren(...ready.map((one) => this.#example(one)));
  }

  #example(ready) {
    const button = make("button", { type: "button" }, beginning(ready.text));
    button.addEventListener("click", () => {
      this.#take(ready);
      this.node.dispatchEvent(new Event("input"));
    });
    return button;
  }

  #take({ text, parameters }) {
    this.text.value = text;
    fill(this.parameters, parameters);
  }
}

/** The examples of a task that the text field can hold, as their text and parameters. */
function textsOf({ examples, parts = null }) {
  const found = examples.map(({ inputs, parameters = {} }) => ({ text: textOf(inputs, parts), parameters }));
  return found.filter(({ text }) => text !== null);
}

/** The first words of a text, as many as a button has room for. */
function beginning(text) {
  const words = text.slice(0, 20);
  return words === text ? text : `${words.slice(0, words.lastIndexOf(" "))} …`;
}

function radio(task, checked) {
  const title = task.charAt(0).toUpperCase() + task.slice(1);
  const control = make("input", { type: "radio", name: "task", value: task, checked });
  return make("label", {}, control, make("span", {}, title));
}

/** Replaces all options but the first, which asks for nothing, and keeps the choice where it is still offered. */
function offerIn(select, names) {
  const chosen = select.value;
  select.replaceChildren(select.options[0], ...names.map((name) => make("option", {}, name)));
  select.value = names.includes(chosen) ? chosen : "";
}
