// Begins: one form, one trial, one watch, over the gateway that served this page.

import { checkpoints, contract } from "./ask.js";
import { tasksOf } from "./contract.js";
import { Form } from "./form.js";
import { coloursOf } from "./palette.js";
import { Scraping } from "./scraping.js";
import { Trial } from "./try.js";
import { Watch } from "./watch.js";

const AGAIN_MS = 15_000;

const trial = new Trial(document, new Form(document));
const watch = new Watch(document);

/** The catalog is asked for again now and then: a rolling update may change it, and a late checkpoint may join. */
async function learn(before = "") {
  let known = before;
  if (document.visibilityState === "visible" || before === "") {
    const catalog = await checkpoints().catch(() => null);
    if (catalog !== null) {
      const { served, coming } = catalog;
      const colours = coloursOf(served);
      watch.know(served, colours, coming);
      const names = served.map(({ name }) => name).join();
      const told = names === before ? null : await contract().catch(() => null);
      if (told !== null) {
        trial.know(served, colours, tasksOf(served, told));
        known = names;
      }
    }
  }
  setTimeout(learn, AGAIN_MS, known);
}

await learn();
trial.preview();
new Scraping(document, (frames) => watch.show(frames), (error, againMs) => watch.lost(error, againMs)).start();
