// Try it: previews the decision while the terms change, sends the request, and shows what came of it.

import { answered, refused, written } from "./answer.js";
import { answer, decision } from "./ask.js";
import { say } from "./dom.js";
import { drawCandidates, drawTicks, moveBudget, tellDecision } from "./ruler.js";
import { reason, refusal } from "./words.js";

const SETTLED_MS = 70;

/** The left half of the page over one form. */
export class Trial {
  #preview = null;
  #timer = 0;
  #underway = null;
  #isAwaited = false;

  constructor(document, form) {
    const of = (id) => document.getElementById(id);
    Object.assign(this, { form, ruler: of("ruler"), decision: of("decision"), candidates: of("candidates") });
    Object.assign(this, { panel: of("answer"), heard: of("answer-status") });
    this.colours = new Map();
    this.domains = new Map();
    drawTicks(of("ticks"));
    form.node.addEventListener("input", () => this.preview());
    form.node.addEventListener("change", () => this.preview());
    form.node.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#underway) this.#underway.abort();
      else this.send();
    });
  }

  /** Takes what is known of the catalog and of its tasks. */
  know(checkpoints, colours, tasks) {
    this.colours = colours;
    this.domains = new Map(checkpoints.map(({ name, domain }) => [name, domain]));
    this.form.offer(checkpoints, tasks);
    if (this.#isAwaited) this.send();
    else this.preview();
  }

  /** Asks for the decision on the terms as they are, once they have settled for a moment. */
  preview() {
    const { budgetMs } = this.form.terms();
    if (budgetMs > 0) moveBudget(this.ruler, budgetMs);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#previewNow(), SETTLED_MS);
  }

  async #previewNow() {
    this.#preview?.abort();
    if (!this.form.tasks.length) return this.#noPreview("The gateway has not told yet what it serves.");
    if (!this.form.isComplete()) return this.#noPreview();
    const asking = new AbortController();
    this.#preview = asking;
    const terms = this.form.terms();
    const told = await decision(terms, asking.signal).catch(() => null);
    if (asking.signal.aborted) return;
    if (told === null) return this.#noPreview("The gateway does not answer.");
    if (!told.ok) return this.#noPreview(told.document.detail ?? told.document.title);
    this.#tell(told.document, terms);
  }

  #tell(told, terms) {
    const why = { budgetMs: told.budget_ms, percentile: told.percentile };
    const name = told.checkpoint;
    const said = name ? reason(told.reason, why) : refusal(told);
    tellDecision(this.decision, name, said, this.colours.get(name));
    this.decision.dataset.refused = String(!name);
    drawCandidates(this.candidates, told, { colours: this.colours, domains: this.domains, minTier: terms.minTier });
  }

  #noPreview(why = "Type a text, and see here who would answer.") {
    tellDecision(this.decision, null, why);
    this.decision.dataset.refused = "true";
    this.candidates.replaceChildren();
  }

  /**
   * Sends the request and shows the answer or the problem. Pressed again meanwhile, the button stops it.
   * Pressed before the tasks are known, it is remembered, and sent once they are.
   */
  async send() {
    this.#isAwaited = !this.form.tasks.length;
    if (this.#isAwaited) return;
    if (!this.form.isComplete()) return this.form.text.focus();
    this.preview();
    const terms = this.form.terms();
    const asking = new AbortController();
    this.#underway = asking;
    const waiting = setTimeout(() => say(this.form.send, "Stop"), 300);
    try {
      const told = await answer(terms, asking.signal, (text) => this.#write(text));
      this.#show(told.ok ? this.#answered(told, terms) : this.#refused(told, terms));
    } catch (error) {
      this.#show(this.#refused(lost(asking.signal.aborted, error), terms));
    } finally {
      clearTimeout(waiting);
      say(this.form.send, "Send");
      this.#underway = null;
    }
  }

  /** Shows what is written so far; it is read out only once it is whole. */
  #write(text) {
    this.panel.hidden = false;
    this.panel.replaceChildren(written(text));
  }

  #answered(told, terms) {
    return answered(told, terms, this.colours.get(told.document.routing.checkpoint));
  }

  #refused(told, terms) {
    return refused(told, terms, (remedy, button) => this.#act(remedy, button));
  }

  #act(remedy, button) {
    button.disabled = true;
    this.form.set(remedy.change);
    setTimeout(() => button.isConnected && this.send(), remedy.afterMs);
  }

  #show({ parts, heard }) {
    this.panel.hidden = false;
    this.panel.replaceChildren(...parts);
    say(this.heard, heard);
  }
}

/** What is shown where no answer came at all. */
function lost(stopped, error) {
  const hungUp = "You hung up. The gateway frees your place and stops the work at the next step.";
  const document = stopped
    ? { title: "Stopped", detail: hungUp, code: "cancelled" }
    : { title: "The gateway does not answer", detail: error.message, code: "unreachable" };
  return { status: "–", document, headers: null };
}
