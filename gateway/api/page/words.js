// The gateway's closed lists in plain words: reasons, verdicts, problems. Pure text, no page.

import { brief, time } from "./figures.js";

/** Why the chosen checkpoint was chosen, to follow its name and a colon. */
export function reason(code, { budgetMs, percentile }) {
  const budget = time(budgetMs);
  const said = {
    fits: `the best of quality whose forecast fits your ${budget}.`,
    congestion: `the best that fits your ${budget} and is worth its price now; an idle gateway would do better.`,
    "only-candidate": `the only one that your terms allow, and its forecast fits your ${budget}.`,
    pinned: "the one that you named.",
    "best-effort": `the fastest there is. No forecast fits your ${budget}, so it may be late.`,
    "at-risk": `not sure at ${brief(percentile)} % to make your ${budget}, but it may yet be in time.`,
  };
  return said[code] ?? `chosen for the reason “${code}”.`;
}

/** What the decision found of a candidate that it did not choose, or of the one it did. */
export function verdict(candidate, { chosen, domain, minTier }) {
  if (chosen) return candidate.verdict === "fits" ? "fits, and answers" : "answers";
  const said = {
    fits: "fits too",
    "too-dear": "in time, but not worth its price now",
    congested: "busy: an idle gateway would make it",
    "too-slow": "too slow for this budget",
    unavailable: "no replica is up",
    "below-min-tier": minTier ? `below the tier ${minTier}` : "below the tier you asked for",
    "not-pinned": "you named another",
    unable: "cannot do what the parameters ask for",
    "other-domain": domain ? `only for texts about ${domain}` : "made for another domain",
  };
  return said[candidate.verdict] ?? candidate.verdict;
}

/** Why nothing was chosen, in a sentence: of a decision that `/route` tells. */
export function refusal(decision) {
  const budget = time(decision.budget_ms);
  const said = {
    infeasible: `Nothing can answer within ${budget}, not even on an idle gateway.`,
    overloaded: `Nothing can answer within ${budget} at the load of this moment.`,
    unavailable: "No checkpoint of this task has a replica that is up.",
    "no-candidate": "No checkpoint meets these terms together.",
  };
  return said[decision.refusal] ?? `Refused: ${decision.refusal}.`;
}

const PROBLEMS = {
  budget_infeasible: "In strict mode the gateway refuses at once what it cannot keep, instead of being late.",
  overloaded: "Too much waits already. The gateway says so at once, so that you can try again or elsewhere.",
  deadline_exceeded: "It was let in, and no answer could come within its time. The rest of the work was stopped.",
  checkpoint_unavailable: "No replica that could answer is up. Lost ones are started again by themselves.",
  inference_failed: "The engine failed on this text. The gateway's log has the reason, under the request id.",
  input_too_long: "The text is longer than this gateway or this checkpoint takes.",
  invalid_request: "The gateway could not make sense of the request as it was sent.",
  unknown_checkpoint: "The catalog has no checkpoint of this name for this task.",
};

/** What a problem means, in a sentence or two. */
export function problem(document) {
  return PROBLEMS[document.code] ?? "";
}

/**
 * What a client can do about a problem: [{label, change, afterMs}]. `change` holds the terms to set before it is sent
 * again; `afterMs` is how long to wait first.
 */
export function remedies(document, terms) {
  const found = [];
  if (document.min_feasible_ms > 0) {
    const least = document.min_feasible_ms;
    found.push({ label: `Use ${least} ms`, change: { budgetMs: least }, afterMs: 0 });
  }
  if (document.retry_after_ms > 0) {
    const wait = document.retry_after_ms;
    found.push({ label: `Try again in ${time(wait)}`, change: {}, afterMs: wait });
  }
  if (terms.mode === "strict" && ["budget_infeasible", "overloaded", "deadline_exceeded"].includes(document.code)) {
    found.push({ label: "Take the best there is, late or not", change: { mode: "best-effort" }, afterMs: 0 });
  }
  return found;
}
