"""The manifest of a trained span head, and its card, which is written from the manifest alone."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from exporters.starter.cards import Part, Provenance, filled, of_adapter, of_training, percent, sources, table_rows

TEMPLATE = Path(__file__).with_name("card.md")


class Score(Part):
    """How well questions are answered, each from 0 to 1.

    `f1` and `exact` are SQuAD's, of the answer's text; `sentence` is the share of answers from a right sentence.
    """

    f1: float
    exact: float
    sentence: float


class Training(Part):
    """How the weights were trained; `settings` is the recipe, and `course` how the run differed from it."""

    course: str
    rows: int
    dev_rows: int
    settings: dict[str, float | int | str | None]
    dev_same: tuple[float, ...]
    kept: int
    wall_s: float
    threads: int
    libraries: dict[str, str]


class SpansCard(Part):
    """The manifest of an adapter that answers questions. `scores` are on `questions`, its own and others', by name."""

    name: str
    task: str
    tier: str
    family: str
    architecture: str
    parameters: int
    trained_parameters: int
    window: int
    stored_precision: str
    base_size_bytes: int
    base: Provenance
    teacher: Provenance
    data: tuple[Provenance, ...]
    questions: int
    scores: dict[str, Score]
    training: Training
    licences: dict[str, str]
    limits: tuple[str, ...]
    files: dict[str, str]


def score_rows(manifest: SpansCard) -> list[tuple[str, ...]]:
    """The rows of the table of scores: the words of the span head, then the sentences of each embedder."""
    return [(name, percent(one.f1), percent(one.exact), percent(one.sentence)) for name, one in manifest.scores.items()]


def table(manifest: SpansCard) -> Table:
    """A table of the scores."""
    made = Table("answers by", "F1", "exact", "from the right sentence")
    for row in score_rows(manifest):
        made.add_row(*row)
    return made


def card(manifest: SpansCard) -> str:
    """The adapter's README in Markdown."""
    training = manifest.training
    return filled(
        TEMPLATE,
        manifest,
        manifest.limits,
        millions=manifest.parameters / 1e6,
        **of_adapter(manifest.trained_parameters, manifest.base_size_bytes),
        table=table_rows(score_rows(manifest)),
        course=training.course,
        dev=", ".join(percent(one) for one in training.dev_same),
        data=sources(manifest.data),
        **of_training(training.wall_s, training.settings, training.libraries),
    )
