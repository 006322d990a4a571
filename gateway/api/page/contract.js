// The tasks that the gateway serves, and what its contract says of each. Pure functions of `/checkpoints` and
// `/openapi.json`; no task is known here by name.

import { partsOf } from "./lines.js";

/** The tasks that a checkpoint serves. */
export function servedBy({ task, also = [] }) {
  return [task, ...also];
}

/**
 * The tasks that a catalog has, in its order: [{name, parts, parameters, examples, streams}], `parts` being those of
 * its inputs and `examples` ready bodies; `streams` says that answers can be read while they are written.
 */
export function tasksOf(checkpoints, contract) {
  return [...new Set(checkpoints.flatMap(servedBy))].map((name) => {
    const { requestBody, responses } = contract.paths[`/${name}`].post;
    const body = plain(requestBody.content["application/json"].schema, contract);
    const { properties = {} } = plain(body.properties.parameters ?? {}, contract);
    const own = Object.entries(properties).filter(([, schema]) => !schema.deprecated); // the rest is for other clients
    const parameters = own.map(([name, schema]) => parameter(name, plain(schema, contract)));
    const parts = partsOf(plain(body.properties.inputs ?? {}, contract));
    const simple = parameters.filter(({ type }) => TYPES.includes(type));
    const streams = "text/event-stream" in (responses?.["200"]?.content ?? {});
    return { name, parts, parameters: simple, examples: body.examples ?? [], streams };
  });
}

/** The types of a parameter that one field can hold. */
const TYPES = ["string", "integer", "number", "boolean"];

function parameter(name, { type, description = "", minimum, maximum, enum: words }) {
  const choices = words ?? (type === "boolean" ? ["true", "false"] : null);
  return { name, type, description, minimum, maximum, choices };
}

/** The schema that a reference leads to, or that stands beside null, with the description of what led to it. */
function plain(schema, contract) {
  const inner = schema.$ref ? found(schema.$ref, contract) : schema.anyOf?.find(({ type }) => type !== "null");
  if (inner === undefined) return schema;
  const { description } = schema;
  return { ...plain(inner, contract), ...(description && { description }) };
}

function found(reference, contract) {
  return reference.split("/").slice(1).reduce((part, step) => part[step], contract);
}
