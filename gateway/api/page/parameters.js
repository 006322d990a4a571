// The fields of a task's parameters: made of what the contract says of them, read, and filled in.

import { make } from "./dom.js";

/** A labelled field; `choices` overrules the parameter's own. What is left empty is the gateway's to decide. */
export function field({ name, type, description, minimum, maximum, choices: own }, choices = own) {
  const known = { "data-parameter": name, "data-type": type };
  const label = (control) => make("label", { title: description }, name.replaceAll("_", " "), control);
  if (choices) {
    const options = choices.map((choice) => make("option", {}, choice));
    const none = make("option", { value: "" }, "default");
    return label(make("select", { ...known, disabled: options.length === 0 }, none, ...options));
  }
  if (type === "string") return label(make("input", { ...known, type: "text" }));
  const step = type === "integer" ? "1" : "any";
  return label(make("input", { ...known, type: "number", min: minimum, max: maximum, step }));
}

/** The parameters that are named in the fields within a node. */
export function named(host) {
  const filled = controls(host).filter(({ value }) => value !== "");
  return Object.fromEntries(filled.map(({ dataset, value }) => [dataset.parameter, read(value, dataset.type)]));
}

/** Fills the fields within a node with parameters, and empties those that are not among them. */
export function fill(host, parameters) {
  for (const control of controls(host)) {
    control.value = String(parameters[control.dataset.parameter] ?? "");
    if (control.selectedIndex < 0) control.value = "";
  }
}

function controls(host) {
  return [...host.querySelectorAll("[data-parameter]")];
}

function read(value, type) {
  if (type === "boolean") return value === "true";
  return type === "string" ? value : Number(value);
}
