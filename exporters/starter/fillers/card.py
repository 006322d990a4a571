"""The manifest of a starter that fills masks, and its card, which is written from the manifest alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from exporters.starter.cards import (
    Part,
    Provenance,
    bullets,
    filled,
    of_adapter,
    of_training,
    percent,
    sources,
    table_rows,
)
from exporters.starter.software.card import DATA_LICENCE

TEMPLATE = Path(__file__).with_name("card.md")
METHOD = (
    "Low-rank adapters (Hu et al., 2021) on attention and feed-forward of all six layers, and BERT's masked-word head: "
    "a dense layer that begins as the identity, a norm, the encoder's own word table, and a bias that begins as the "
    "words' frequency. All else is frozen. Whole words of one piece are masked, as many as 30 % of a text's tokens: "
    "twice BERT's share, since a text is read once. The loss is computed at masks alone. Of the states scored on dev, "
    "the best is kept."
)
LIMITS = (
    "English only, lower-cased: it writes no capitals, and one mask stands for one word of its vocabulary.",
    "It has learnt from a few million tokens and not from billions: it knows how a sentence goes on better than it "
    "knows the world. Facts that it fills in are often wrong.",
    "It repeats what its texts associate with groups of people.",
    "It learnt from texts of up to 64 tokens; more context than a few sentences helps it little.",
    "Not for decisions about people, nor for medical, legal or financial use.",
)


class Score(Part):
    """The share of masked words that are guessed first, with its 95 % Wilson interval, and within five guesses."""

    sentences: int
    first: float
    low: float
    high: float
    within: float


class Compared(Part):
    """A score of the checkpoint, and those of two guessers that count words in the same training texts."""

    checkpoint: Score
    pairs: Score
    frequency: Score


class Data(Part):
    """The texts: sources, split rule, texts and tokens learnt from by kind, the digest of the everyday sentences."""

    origins: tuple[Provenance, ...]
    releases: tuple[str, ...]
    split_rule: str
    texts: dict[str, int]
    tokens: dict[str, int]
    everyday_sha256: str


class Training(Part):
    """How the weights were trained; `settings` is the recipe as run."""

    method: str
    settings: dict[str, float | int | str | None]
    steps: int
    kept_step: int
    tokens: int
    dev_right_by_step: dict[int, float]
    wall_s: float
    threads: int
    libraries: dict[str, str]


class FillerCard(Part):
    """The manifest of a starter checkpoint that fills masks. `scores` are by kind of text, held out."""

    name: str
    task: str
    tier: str
    family: str
    architecture: str
    layers: int
    width: int
    parameters: int
    trained_parameters: int
    vocabulary: int
    stored_precision: str
    base_size_bytes: int
    base: Provenance
    data: Data
    scores: dict[str, Compared]
    heldout: Compared
    dev: Compared
    everyday: Compared
    training: Training
    licences: dict[str, str]
    limits: tuple[str, ...]
    files: dict[str, str]


def card(manifest: FillerCard) -> str:
    """The checkpoint's README in Markdown."""
    training = manifest.training
    return filled(
        TEMPLATE,
        manifest,
        manifest.limits,
        millions=manifest.parameters / 1e6,
        **of_adapter(manifest.trained_parameters, manifest.base_size_bytes),
        table=table_rows(score_rows(manifest)),
        learnt=bullets(
            f"{kind}: {count:,} texts, {manifest.data.tokens[kind]:,} tokens"
            for kind, count in manifest.data.texts.items()
        ),
        origins=sources(manifest.data.origins),
        releases=", ".join(manifest.data.releases),
        debian=DATA_LICENCE,
        tokens=training.tokens / 1e6,
        best=percent(training.dev_right_by_step[training.kept_step]),
        **of_training(training.wall_s, training.settings, training.libraries),
    )


def score_rows(manifest: FillerCard) -> list[tuple[str, ...]]:
    """The cells of the table of scores: each kind of text, all of them, dev, and the everyday sentences."""
    everything: Mapping[str, Compared] = {
        **manifest.scores,
        "all held out": manifest.heldout,
        "dev (used for choices)": manifest.dev,
        "everyday, written by hand": manifest.everyday,
    }
    return [_row(name, compared) for name, compared in everything.items()]


def _row(name: str, compared: Compared) -> tuple[str, ...]:
    own = compared.checkpoint
    guessed = (f"{percent(one.first)}, {percent(one.within)}" for one in (compared.pairs, compared.frequency))
    interval = f"{percent(own.low)} to {percent(own.high)}"
    return (name, f"{own.sentences:,}", percent(own.first), interval, percent(own.within), *guessed)
