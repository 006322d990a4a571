"""Scores the saved checkpoint on dev and held-out texts, with baselines and examples."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from exporters.starter.rouge import interval, rouge_scores
from exporters.starter.software.card import Example, Figure, Score, Scores
from exporters.starter.software.decoding import GREEDY, Settings, chosen, load, summaries

QUANTILES = (0.9, 0.5, 0.1)
"""The ROUGE-L quantiles of the examples among held-out texts: a good, a median and a bad one."""
TEXT_CHARS = 400
KINDS = ("rouge1", "rouge2", "rougeL")
FIRST_WORDS = 12
RESAMPLES = 2000
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])")
ABBREVIATIONS = ("e.g.", "i.e.", "etc.", "vs.", "cf.", "a.k.a.", "aka.", "Dr.", "Mr.", "Inc.", "No.")


@dataclass(frozen=True)
class Texts:
    """Texts with their human summaries."""

    texts: Sequence[str]
    summaries: Sequence[str]


@dataclass(frozen=True)
class Measured:
    """The scores of both sides, and examples from the held-out side."""

    heldout: Scores
    dev: Scores
    examples: tuple[Example, ...]


def choose_settings(folder: Path, dev: Texts, max_tokens: int, report: Callable[[str], None]) -> Settings:
    """The generation settings with the best ROUGE-L on dev."""
    model, tokenizer = load(folder)

    def on_dev(settings: Settings) -> float:
        value = rouge(dev.summaries, summaries(model, tokenizer, dev.texts, max_tokens, **settings)).rougeL[0]
        report(f"length penalty {settings['length_penalty']}, at least {settings['min_length']}: ROUGE-L {value}")
        return value

    return chosen(on_dev)


def measure(folder: Path, heldout: Texts, dev: Texts, max_tokens: int) -> Measured:
    """The scores of the checkpoint in a folder, with its own generation settings."""
    said, scored = _scored(folder, heldout, max_tokens)
    _, on_dev = _scored(folder, dev, max_tokens)
    return Measured(scored, on_dev, examples(heldout, said))


def examples(texts: Texts, said: Sequence[str]) -> tuple[Example, ...]:
    """The examples at `QUANTILES`, among texts short enough to print."""
    values = rouge_scores(texts.summaries, said, KINDS)[:, -1]
    short = [at for at in range(len(said)) if len(texts.texts[at]) <= TEXT_CHARS] or list(range(len(said)))
    ranked = sorted(short, key=lambda at: (values[at], at))
    picked = [ranked[min(len(ranked) - 1, int(q * len(ranked)))] for q in QUANTILES]
    return tuple(
        Example(
            text=texts.texts[at],
            people=texts.summaries[at],
            checkpoint=said[at],
            rougeL=round(float(values[at]), 1),
        )
        for at in picked
    )


def _scored(folder: Path, side: Texts, max_tokens: int) -> tuple[list[str], Scores]:
    model, tokenizer = load(folder)
    beam = summaries(model, tokenizer, side.texts, max_tokens)
    greedy = summaries(model, tokenizer, side.texts, max_tokens, **GREEDY)
    leads = [first_sentence(text) for text in side.texts]
    found = Scores(
        beam=rouge(side.summaries, beam),
        greedy=rouge(side.summaries, greedy),
        first_sentence=rouge(side.summaries, leads),
        first_words=rouge(side.summaries, [first_words(text) for text in side.texts]),
        margin=margin(side.summaries, beam, leads),
    )
    return beam, found


def rouge(references: Sequence[str], candidates: Sequence[str], seed: int = 0) -> Score:
    """The mean of each measure with its 95 % interval. Raises `ValueError` for no texts."""
    if not references:
        raise ValueError("no summaries to score")
    values = rouge_scores(references, candidates, KINDS)
    columns = zip(KINDS, values.mean(axis=0), *interval(values, seed, RESAMPLES), strict=True)
    figures = {kind: _figure(*bounds) for kind, *bounds in columns}
    return Score(texts=len(values), **figures)


def margin(references: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> Figure:
    """The paired difference of two sets of summaries in points of ROUGE-L, with its 95 % interval."""
    values = rouge_scores(references, ours, KINDS) - rouge_scores(references, theirs, KINDS)
    low, high = interval(values, 0, RESAMPLES)
    return _figure(values.mean(axis=0)[-1], low[-1], high[-1])


def first_sentence(text: str) -> str:
    """The first sentence of a text, with abbreviations handled; the whole text if it has no sentence end."""
    for match in SENTENCE_END.finditer(text):
        if not text[: match.start()].endswith(ABBREVIATIONS):
            return text[: match.end()].strip()
    return text


def first_words(text: str, count: int = FIRST_WORDS) -> str:
    """The text's first words."""
    return " ".join(text.split()[:count])


def _figure(mean: float, low: float, high: float) -> Figure:
    return round(float(mean), 2), round(float(low), 2), round(float(high), 2)
