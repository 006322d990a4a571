// The JavaScript clients of Hugging Face and of OpenAI against a gateway: `node clients.mjs http://127.0.0.1:8000`.
// Prints one line a call, and ends with 1 where an answer is not as its client promises it.
import assert from "node:assert/strict";
import { InferenceClient } from "@huggingface/inference";
import OpenAI from "openai";

const url = process.argv[2];
const text = "What a wonderful film. The actors were good and the story was better.";
const at = (path) => new InferenceClient("none").endpoint(url + path);
const openai = new OpenAI({ apiKey: "none", baseURL: url + "/v1", maxRetries: 0 });
const messages = [{ role: "user", content: "Name three fruits." }];
const isVector = (one) => Array.isArray(one) && one.length > 0 && one.every(Number.isFinite);

async function streamed(chunks, textOf) {
  let said = "";
  for await (const chunk of chunks) said += textOf(chunk) ?? "";
  assert(said.length > 0);
}

const calls = {
  textClassification: async () => {
    const [best] = await at("/classify").textClassification({ inputs: text });
    assert.equal(best.label, "positive");
    assert(best.score > 0.5);
  },
  zeroShotClassification: async () => {
    const labels = ["cinema", "cooking"];
    const told = await at("/zero-shot").zeroShotClassification({ inputs: text, parameters: { candidate_labels: labels } });
    assert.deepEqual(told.map((one) => one.label).sort(), labels);
  },
  summarization: async () => {
    assert((await at("/summarize").summarization({ inputs: text })).summary_text.length > 0);
  },
  featureExtraction: async () => {
    const vector = await at("/embed").featureExtraction({ inputs: text });
    assert(isVector(vector) || vector.every(isVector));
  },
  sentenceSimilarity: async () => {
    const inputs = { source_sentence: text, sentences: ["A good film.", "Rain."] };
    const [near, far] = await at("/similarity").sentenceSimilarity({ inputs });
    assert(near > far);
  },
  tokenClassification: async () => {
    const found = await at("/tokens").tokenClassification({ inputs: "Ann Lee lives in Paris, 12 Hill Road." });
    assert(found.every((one) => one.entity_group && one.end > one.start));
  },
  questionAnswering: async () => {
    const told = await at("/answer").questionAnswering({ inputs: { question: "What was good?", context: text } });
    assert(text.includes((Array.isArray(told) ? told[0] : told).answer));
  },
  textGeneration: async () => {
    const told = await at("").textGeneration({ inputs: "Once upon a time", parameters: { max_new_tokens: 8 } });
    assert(told.generated_text.length > 0);
  },
  textGenerationStream: async () => {
    const asked = { inputs: "Once upon a time", parameters: { max_new_tokens: 8 } };
    await streamed(at("").textGenerationStream(asked), (chunk) => chunk.choices[0]?.text);
  },
  models: async () => {
    const found = [];
    for await (const model of openai.models.list()) found.push(model.id);
    assert(found.length > 0);
  },
  chat: async () => {
    const told = await openai.chat.completions.create({ model: "punctual", messages, max_tokens: 8 });
    assert(told.choices[0].message.content.length > 0);
    assert(told.usage.completion_tokens > 0);
  },
  chatStream: async () => {
    const asked = { model: "punctual", messages, max_tokens: 8, stream: true, stream_options: { include_usage: true } };
    await streamed(await openai.chat.completions.create(asked), (chunk) => chunk.choices[0]?.delta?.content);
  },
  completions: async () => {
    const told = await openai.completions.create({ model: "punctual", prompt: "Once upon a time", max_tokens: 8 });
    assert(told.choices[0].text.length > 0);
  },
  completionsStream: async () => {
    const asked = { model: "punctual", prompt: "Once upon a time", max_tokens: 8, stream: true };
    await streamed(await openai.completions.create(asked), (chunk) => chunk.choices[0]?.text);
  },
  embeddings: async () => {
    const told = await openai.embeddings.create({ model: "all-minilm-l6", input: [text, "Rain."] });
    assert(told.data.length === 2 && told.data.every((one) => isVector(one.embedding)));
  },
  problem: async () => {
    const asked = openai.chat.completions.create({ model: "nobody", messages });
    await assert.rejects(asked, (error) => error instanceof OpenAI.NotFoundError && error.code.length > 0);
  },
};

let failed = 0;
for (const [name, call] of Object.entries(calls)) {
  try {
    await call();
    console.log(`${name}: as promised`);
  } catch (error) {
    failed += 1;
    console.log(`${name}: ${error.stack ?? error}`);
  }
}
process.exit(failed ? 1 : 0);
