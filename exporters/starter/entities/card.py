"""The manifest of the general tagger, and its card, which is written from the manifest alone."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from exporters.starter.cards import Part, Provenance, bullets, filled, of_adapter, of_training, sources, table_rows

TEMPLATE = Path(__file__).with_name("card.md")


class Score(Part):
    """How well entities are found, from 0 to 1: those of the right kind from the first character to the last."""

    texts: int
    entities: int
    precision: float
    recall: float
    f1: float


class Marked(Part):
    """Scores on the texts marked by hand: the checkpoint's, of all and by sort of text and kind, and the teacher's."""

    data_sha256: str
    all: Score
    by_sort: dict[str, Score]
    by_kind: dict[str, Score]
    teacher: Score
    teacher_by_sort: dict[str, Score]
    teacher_by_kind: dict[str, Score]


class Scores(Part):
    """`taught` takes the teacher's entities for right, on held-out sentences, of all and by source."""

    marked: Marked
    taught: Score
    taught_by_source: dict[str, Score]


class Training(Part):
    """How the weights were trained; `settings` is the recipe as run."""

    rows: int
    dev_rows: int
    settings: dict[str, float | int | str | None]
    dev_f1: tuple[float, ...]
    kept: int
    wall_s: float
    threads: int
    libraries: dict[str, str]


class EntitiesCard(Part):
    """The manifest of a starter checkpoint that is an adapter and labels tokens. `base` is the package of its base."""

    name: str
    task: str
    tier: str
    domain: str
    family: str
    architecture: str
    layers: int
    width: int
    parameters: int
    trained_parameters: int
    window: int
    aggregation: str
    labels: tuple[str, ...]
    stored_precision: str
    base_size_bytes: int
    base: Provenance
    teacher: Provenance
    data: tuple[Provenance, ...]
    kinds: dict[str, str]
    scores: Scores
    training: Training
    licences: dict[str, str]
    limits: tuple[str, ...]
    files: dict[str, str]


def score_rows(manifest: EntitiesCard) -> list[tuple[str, ...]]:
    """The rows of the table of scores: all marked texts, then by sort and kind, then held-out sentences by source."""
    marked, scores = manifest.scores.marked, manifest.scores
    rows = [_row("marked by hand", "all", marked.all, marked.teacher)]
    rows += [_row("", sort, one, marked.teacher_by_sort[sort]) for sort, one in marked.by_sort.items()]
    rows += [_row("", kind, one, marked.teacher_by_kind[kind]) for kind, one in marked.by_kind.items()]
    rows += [_row("as the teacher labels", "all", scores.taught, None)]
    return rows + [_row("", source, one, None) for source, one in scores.taught_by_source.items()]


def _row(texts: str, of: str, one: Score, teacher: Score | None) -> tuple[str, ...]:
    shares = (f"{100 * share:.1f}" for share in (one.precision, one.recall, one.f1))
    return (texts, of, str(one.entities), *shares, f"{100 * teacher.f1:.1f}" if teacher else "")


def table(manifest: EntitiesCard) -> Table:
    """A table of the checkpoint's scores and of its teacher's."""
    made = Table("texts", "of", "entities", "precision", "recall", "F1", "the teacher's F1")
    for row in score_rows(manifest):
        made.add_row(*row)
    return made


def card(manifest: EntitiesCard) -> str:
    """The adapter's README in Markdown."""
    training, scores = manifest.training, manifest.scores
    return filled(
        TEMPLATE,
        manifest,
        manifest.limits,
        millions=manifest.parameters / 1e6,
        **of_adapter(manifest.trained_parameters, manifest.base_size_bytes),
        kinds=bullets(f"`{kind}`: {meaning}" for kind, meaning in manifest.kinds.items()),
        table=table_rows(score_rows(manifest)),
        marked=scores.marked.all,
        dev=", ".join(f"{100 * one:.1f}" for one in training.dev_f1),
        kept=training.kept + 1,
        data=sources(manifest.data),
        **of_training(training.wall_s, training.settings, training.libraries),
    )
