"""Score summaries that SmolLM2 writes from picked sentences: `python -m exporters.starter.rewriting`.

The small language model is shown the sentences that `extract-quality` picks, and nothing else. Where its summary claims
a name, a number or a negation that they lack, the picked sentences are the answer (`checked`). Both are compared with
those sentences, with `extract-realtime` and with the first three, on papers (ACLSum) and on news (XSum of BIG-bench,
which is fetched to score on and nobody's training data).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from deployments.replica.sentences import split_sentences
from deployments.replica.summarize.ranking import Ranker, default_count
from exporters.errors import ExportError
from exporters.kinds.extractive import load_sentence_encoder, read_description, split_texts, vectors_of
from exporters.kinds.original import Original, load_original
from exporters.sources.registry import NotFetched
from exporters.sources.source import resolve_source
from exporters.sources.texts import SUMMARIES, Text, TextSet, read_texts
from exporters.starter.command import CACHE, THREADS
from exporters.starter.packages import CannotBuild
from exporters.starter.rewriting.claims import claims_of
from exporters.starter.rouge import Scores, interval, rouge_scores
from exporters.starter.zero_shot.material import benchmark

NEWS = "gem/xsum/task.json"
KINDS = ("rouge1", "rouge2", "rougeL")
LEAD = 3
TOGETHER = 8
MOST_TOKENS = 90
MOST_CHARACTERS = 6_000
"""Of a text: a document of more is cut, as its beginning is what the sentences are picked from."""

PLAIN: dict[str, Any] = {"padding": True, "return_tensors": "pt", "return_token_type_ids": False}
ASKED = "Summarize the following text in one or two short sentences. Use only what it says.\n\n{}"
RESAMPLES, SEED = 10_000, 20240601
SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)]*(?=\s|$)")

Writes: TypeAlias = Callable[[Sequence[str]], "list[str]"]


@dataclass(frozen=True)
class Way:
    """One way to summarise: its name, and the summaries of a set's texts, in order."""

    name: str
    summaries: Sequence[str]


def papers() -> TextSet:
    """The held-out papers of ACLSum, with their summaries."""
    return read_texts(SUMMARIES)


def news(cache: Path, most: int) -> TextSet:
    """At most `most` articles with the sentence that sums each up, evenly spaced. Raises NotFetched, CannotBuild."""
    examples = benchmark(NEWS, cache)["examples"]
    found = [Text(one["input"][:MOST_CHARACTERS], one["target"]) for one in examples if one["input"].strip()]
    return TextSet("XSum of BIG-bench", tuple(found)).spread(most)


def picked(name: str, texts: TextSet, cache: Path) -> list[list[str]]:
    """The sentences that a starter's own ranker picks of each text, in the text's order."""
    source = resolve_source(f"starter:{name}", cache=cache)
    description = read_description(source)
    encoder = load_sentence_encoder(source, description.layer, description.max_tokens)
    ranker = Ranker.load(source.path / description.ranker)
    split = split_texts(texts)
    vectors = vectors_of(split, encoder.original.encode, encoder.run, lambda share: None)
    found = []
    for one, text in zip(vectors, split.texts, strict=True):
        count = min(description.sentences, default_count(len(text.sentences)))
        found.append([text.sentences[at] for at in sorted(ranker.choose(one, text.facts, count))])
    return found


def first(text: str) -> str:
    """The first three sentences."""
    return " ".join(text[span.start : span.end] for span in split_sentences(text)[:LEAD])


def whole(written: str) -> str:
    """What was written up to the end of its last whole sentence; all of it if it ends none."""
    ends = [match.end() for match in SENTENCE_END.finditer(written)]
    return (written[: ends[-1]] if ends else written).strip()


def rewritten(original: Original, sources: Sequence[str]) -> list[str]:
    """What the model writes of each source, with the likeliest tokens."""
    tokenizer, model = original.tokenizer, original.model
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": ASKED.format(source)}], add_generation_prompt=True, tokenize=False
        )
        for source in sources
    ]
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    told: list[str] = []
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    for start in track(range(0, len(order), TOGETHER), "writing"):
        rows: Any = tokenizer([prompts[at] for at in order[start : start + TOGETHER]], **PLAIN)
        with torch.inference_mode():
            made = model.generate(**rows, do_sample=False, max_new_tokens=MOST_TOKENS)  # type: ignore[operator]
        told += [whole(one) for one in tokenizer.batch_decode(made[:, rows["input_ids"].shape[1] :], True)]
    return [told[order.index(at)] for at in range(len(prompts))]


def checked(written: Sequence[str], sources: Sequence[str]) -> list[str]:
    """Each summary, or its source where it claims what that has not, or says nothing."""
    return [
        source if not one or claims_of(one, source).missing else one
        for one, source in zip(written, sources, strict=True)
    ]


def ways_of(texts: TextSet, original: Original, cache: Path) -> list[Way]:
    """Every way's summaries of a set; the one that the others are compared with is first."""
    sources = [" ".join(sentences) for sentences in picked("extract-quality", texts, cache)]
    written = rewritten(original, sources)
    return [
        Way("extract-quality", sources),
        Way("extract-realtime", [" ".join(sentences) for sentences in picked("extract-realtime", texts, cache)]),
        Way("the first three sentences", [first(one.text) for one in texts.texts]),
        Way("smollm2 of what extract-quality picks", written),
        Way("the same, checked", checked(written, sources)),
    ]


def add_rows(table: Table, texts: TextSet, ways: Sequence[Way]) -> None:
    """A row for each way: ROUGE, the gain over the first way, the share of claims that stand in the text, its words."""
    references = [one.answer or "" for one in texts.texts]
    base: Scores | None = None
    for way in ways:
        scores = rouge_scores(references, way.summaries, KINDS)
        base = scores if base is None else base
        gain = scores - base
        low, high = interval(gain, SEED, RESAMPLES)
        claims = [claims_of(one, text.text) for one, text in zip(way.summaries, texts.texts, strict=True)]
        made, missing = sum(one.made for one in claims), sum(len(one.missing) for one in claims)
        words = float(np.mean([len(one.split()) for one in way.summaries]))
        table.add_row(
            texts.name,
            way.name,
            *(f"{mean:.2f}" for mean in scores.mean(axis=0)),
            f"{gain[:, 0].mean():+.2f} ({low[0]:+.2f} to {high[0]:+.2f})",
            f"{1 - missing / made:.1%} of {made}",
            f"{words:.0f}",
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table. Status 0, or 1 if data or weights cannot be fetched."""
    parser = argparse.ArgumentParser(prog="python -m exporters.starter.rewriting", description=__doc__)
    parser.add_argument("--cache", type=Path, default=CACHE, help="the folder of downloads")
    parser.add_argument("--news", type=int, default=200, help="articles to score on")
    options = parser.parse_args(arguments)
    console = Console(width=180)
    torch.set_num_threads(THREADS)
    try:
        sets = [papers(), news(options.cache, options.news)]
        source = resolve_source("starter:smollm2", cache=options.cache)
    except (CannotBuild, NotFetched, ExportError) as missing:
        console.print(f"[red]{missing}[/red]")
        return 1
    original = load_original(source.path, source.location, "AutoModelForCausalLM", "a writer")
    table = Table("texts", "summary", *KINDS, "rouge1 over extract-quality", "claims in the text", "words")
    for texts in sets:
        add_rows(table, texts, ways_of(texts, original, options.cache))
        table.add_section()
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
