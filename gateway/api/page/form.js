// The form: reads the request's terms from its fields, and keeps slider and number field in step.

import { make } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { time } from "./figures.js";
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
    this.pin = of("pin");
    this.domain = of("domain");
    this.send = of("send");
    this.catalog = [];
    this.slider.addEventListener("input", () => this.#budget(msAt(this.slider.value / STEPS), this.amount));
    this.amount.addEventListener("input", () => this.#budget(this.amount.valueAsNumber, this.slider));
    for (const task of this.#all("task")) task.addEventListener("change", () => this.#taskChanged());
    this.text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.node.requestSubmit();
    });
    this.set({ budgetMs: this.amount.valueAsNumber });
    this.#taskChanged();
  }

  /** What is asked for now. */
  terms() {
    const fields = new FormData(this.node);
    return {
      task: fields.get("task"),
      text: this.text.value,
      budgetMs: this.amount.valueAsNumber,
      mode: fields.get("mode"),
      percentile: Number(fields.get("percentile")) || 95,
      minTier: fields.get("minTier") || null,
      checkpoint: fields.get("checkpoint") || null,
      domain: fields.get("domain") || null,
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
    return this.text.value.trim() !== "" && this.amount.valueAsNumber > 0;
  }

  /** Offers the checkpoints and domains there are. */
  offer(checkpoints) {
    this.catalog = checkpoints;
    this.#taskChanged({ keepText: true });
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

  #taskChanged({ keepText = false } = {}) {
    const task = new FormData(this.node).get("task");
    const others = Object.entries(EXAMPLES).filter(([other]) => other !== task).flatMap(([, ready]) => ready);
    const isReady = this.text.value === "" || others.some(({ text }) => text === this.text.value);
    if (!keepText && isReady) this.#take(EXAMPLES[task][0]);
    this.examples.replaceChildren(...EXAMPLES[task].map((ready) => this.#example(ready)));
    const names = this.catalog.filter((one) => one.task === task);
    offerIn(this.pin, names.map(({ name }) => name));
    offerIn(this.domain, [...new Set(names.map(({ domain }) => domain).filter(Boolean))]);
    this.domain.disabled = this.domain.options.length < 2;
  }

  #example(ready) {
    const button = make("button", { type: "button" }, ready.name);
    button.addEventListener("click", () => {
      this.#take(ready);
      this.node.dispatchEvent(new Event("input"));
    });
    return button;
  }

  #take({ text, domain = "" }) {
    this.text.value = text;
    this.domain.value = domain;
    if (this.domain.selectedIndex < 0) this.domain.value = "";
  }
}

/** Replaces all options but the first, which asks for nothing, and keeps the choice where it is still offered. */
function offerIn(select, names) {
  const chosen = select.value;
  select.replaceChildren(select.options[0], ...names.map((name) => make("option", {}, name)));
  select.value = names.includes(chosen) ? chosen : "";
}
