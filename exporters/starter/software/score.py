"""The saved checkpoint measured on dev and held-out texts, beside what costs nothing, and examples of what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from exporters.starter.software.decoding import GREEDY, Settings, chosen
from exporters.starter.software.generate import load, summaries
from exporters.starter.software.manifest import Example, Score, Scores
from exporters.starter.software.rouge import Rouge, first_sentence, first_words, margin, rouge, scores

QUANTILES = (0.9, 0.5, 0.1)
"""Where the examples stand among all held-out texts, by ROUGE-L: a good one, a middling one, a bad one."""
TEXT_CHARS = 400


@dataclass(frozen=True)
class Texts:
    """Texts with the summaries people gave them."""

    texts: Sequence[str]
    summaries: Sequence[str]


@dataclass(frozen=True)
class Measured:
    """The scores of both sides and the examples, taken from held out."""

    heldout: Scores
    dev: Scores
    examples: tuple[Example, ...]


def settle(folder: Path, dev: Texts, max_tokens: int, told: Callable[[str], None]) -> Settings:
    """The generation settings that serve dev best by ROUGE-L."""
    model, tokenizer = load(folder)

    def on_dev(settings: Settings) -> float:
        value = rouge(dev.summaries, summaries(model, tokenizer, dev.texts, max_tokens, **settings)).rougeL[0]
        told(f"length penalty {settings['length_penalty']}, at least {settings['min_length']}: ROUGE-L {value}")
        return value

    return chosen(on_dev)


def measure(folder: Path, heldout: Texts, dev: Texts, max_tokens: int) -> Measured:
    """The scores of the checkpoint in a folder, decoded by its own settings."""
    said, scored = _scored(folder, heldout, max_tokens)
    _, on_dev = _scored(folder, dev, max_tokens)
    return Measured(scored, on_dev, examples(heldout, said))


def examples(texts: Texts, said: Sequence[str]) -> tuple[Example, ...]:
    """The texts that stand at `QUANTILES`, of those short enough to print."""
    values = scores(texts.summaries, said)[:, -1]
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
        beam=_score(rouge(side.summaries, beam)),
        greedy=_score(rouge(side.summaries, greedy)),
        first_sentence=_score(rouge(side.summaries, leads)),
        first_words=_score(rouge(side.summaries, [first_words(text) for text in side.texts])),
        margin=margin(side.summaries, beam, leads),
    )
    return beam, found


def _score(found: Rouge) -> Score:
    return Score(**asdict(found))
