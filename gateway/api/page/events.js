// Server-sent events, as an answer has them that is read while it is written.

/** The events that are whole in a text, {name, data}, data being what its JSON holds; and the rest of the text. */
export function eventsIn(text) {
  const blocks = text.split("\n\n");
  const rest = blocks.pop();
  return [blocks.map(eventOf).filter(({ data }) => data !== undefined), rest]; // without data it is a comment
}

function eventOf(block) {
  const event = { name: "message" };
  for (const line of block.split("\n")) {
    const end = line.indexOf(":");
    const value = line.slice(end + 1).trimStart();
    if (line.slice(0, end) === "event") event.name = value;
    if (line.slice(0, end) === "data") event.data = JSON.parse(value);
  }
  return event;
}
