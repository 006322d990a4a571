// The text field of tasks whose inputs have parts: each line of the field is one part. No task is known here by name.

/** The parts that a schema of inputs has, [{name, many, description}] in order; null where inputs are texts. */
export function partsOf(schema) {
  const parts = Object.entries(schema.properties ?? {});
  if (!parts.length) return null;
  return parts.map(([name, { type, description = "" }]) => ({ name, many: type === "array", description }));
}

/** The inputs that are written in a field: a line for each part, and what is left for the last. */
export function inputsIn(text, parts) {
  if (parts === null) return text;
  const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
  return Object.fromEntries(
    parts.map(({ name, many }, nth) => {
      const own = nth === parts.length - 1 ? lines.slice(nth) : lines.slice(nth, nth + 1);
      return [name, many ? own : own.join(" ")];
    }),
  );
}

/** Inputs as a field holds them; null for those that it cannot hold. */
export function textOf(inputs, parts) {
  if (typeof inputs === "string") return inputs;
  if (parts === null || Array.isArray(inputs)) return null;
  return parts.flatMap(({ name }) => inputs[name]).join("\n");
}

/** What to write on which line, in one sentence; empty where the field is one text. */
export function hint(parts) {
  if (parts === null) return "";
  const said = parts.map(({ description }, nth) => `${place(nth, parts.length)}: ${description}`);
  return `${said.join(". ")}.`;
}

function place(nth, count) {
  if (nth === count - 1) return "Further lines";
  return nth === 0 ? "First line" : "Next line";
}
