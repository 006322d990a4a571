"""`punctual bench batchmates`: how far an answer depends on the texts that share its engine run.

Dynamic int8 has one activation scale for a whole batch, so the same text has other scores beside other texts. Each
held-out sentence is run alone, then in batches of random mates of like length, and the answers are compared by how near
a tie the sentence is when it is alone. Runs no gateway; needs no quiet machine, since nothing is timed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from deployments.engines.base import padded
from deployments.replica.classify import OpenClassifier, applied, open_classifier
from exporters.options import DEFAULT_CACHE, DEFAULT_CATALOG, CacheOption, CatalogOption
from exporters.sources.texts import HELDOUT
from gateway.tasks import read_manifest
from loadtests import options
from loadtests.bench.measuring.report import Report, Table, present
from loadtests.sentences import heldout_sentences

Scores = NDArray[np.float64]

MARGINS = (0.02, 0.1, 0.3, 1.0)
"""The upper ends of the classes of sentences, by the two best scores' difference when alone."""

NEIGHBOURS = 64
"""Sentences of like length from which batches are drawn."""


@dataclass(frozen=True)
class Settings:
    """Sentences in a batch, and how often every sentence is run among new mates."""

    batch: int = 8
    rounds: int = 5
    seed: int = 20
    heldout: Path = HELDOUT


@dataclass(frozen=True)
class ByMargin:
    """Sentences of one class. `flipped` got another label in at least one round; `moves` are their largest changes."""

    below: float
    sentences: int
    flipped: int
    moves: tuple[float, float, float]
    """Median, 95th percentile and largest of the change of the best label's score, in each sentence's worst round."""


@dataclass(frozen=True)
class Dependence:
    """One checkpoint's answers among mates, compared with those alone. `answers` of `flips` are single answers."""

    checkpoint: str
    variant: str
    answers: int
    flips: int
    classes: tuple[ByMargin, ...]


def command(
    catalog: CatalogOption = DEFAULT_CATALOG,
    cache: CacheOption = DEFAULT_CACHE,
    variant: Annotated[
        list[Path] | None,
        typer.Option(help="a variant's folder instead of a catalog's; may be given several times"),
    ] = None,
    batch: Annotated[int, typer.Option(min=2, help="sentences in a batch")] = Settings.batch,
    rounds: options.Rounds = Settings.rounds,
    seed: Annotated[int, typer.Option(help="of the draw of mates")] = Settings.seed,
    json: options.Json = None,
    markdown: Annotated[Path | None, typer.Option(help="write the tables there")] = None,
) -> None:
    """Measures how far a classifier's answers depend on the texts that share its engine run."""
    folders = variant or _classifiers(options.prepared(catalog, cache)[1])
    report = measure(folders, Settings(batch, rounds, seed), options.console)
    raise typer.Exit(present(report, options.console, json=json, markdown=markdown))


def _classifiers(variants: Mapping[str, Path]) -> list[Path]:
    return [folder for folder in variants.values() if read_manifest(folder).kind == "classifier"]


def measure(folders: Sequence[Path], settings: Settings, console: Console) -> Report:
    """Runs every held-out sentence on each variant, alone and among mates. Raises LoadTestError, VariantRejected."""
    texts = [sentence.text for sentence in heldout_sentences(settings.heldout)]
    found = []
    with Progress(console=console) as bar:
        for folder in folders:
            opened = open_classifier(folder, threads=1)
            line = bar.add_task(opened.manifest.checkpoint, total=settings.rounds + 1)
            found.append(compared(opened, texts, settings, partial(bar.advance, line)))
    return report_of(found, len(texts), settings)


def compared(
    opened: OpenClassifier, texts: Sequence[str], settings: Settings, advance: Callable[[], None]
) -> Dependence:
    """Compares a variant's scores of the texts among mates with those alone. Equal seeds draw equal mates."""
    rows = [opened.scorer.ids(text) for text in texts]
    alone = _scores(opened, rows, [[at] for at in range(len(rows))])
    advance()
    best = alone.argmax(axis=1)
    chance = random.Random(settings.seed)
    worst = np.zeros(len(rows))
    changed = np.zeros(len(rows), dtype=np.int64)
    for _ in range(settings.rounds):
        among = _scores(opened, rows, drawn(rows, settings.batch, chance))
        moved = np.abs(among - alone)[np.arange(len(rows)), best]
        worst = np.maximum(worst, moved)
        changed += among.argmax(axis=1) != best
        advance()
    ordered = np.sort(alone, axis=1)
    margins = ordered[:, -1] - ordered[:, -2]
    classes = []
    for above, below in zip((-1.0, *MARGINS[:-1]), MARGINS, strict=True):
        inside = (margins > above) & (margins <= below)
        if inside.any():
            moves = [float(value) for value in np.quantile(worst[inside], (0.5, 0.95, 1.0))]
            flipped = int((changed[inside] > 0).sum())
            classes.append(ByMargin(below, int(inside.sum()), flipped, (moves[0], moves[1], moves[2])))
    manifest = opened.manifest
    answers = len(rows) * settings.rounds
    return Dependence(manifest.checkpoint, manifest.variant, answers, int(changed.sum()), tuple(classes))


def drawn(rows: Sequence[Sequence[int]], batch: int, chance: random.Random) -> list[list[int]]:
    """Divides the rows into batches: by length, shuffled among `NEIGHBOURS` of like length. Each row is in one."""
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
    mixed: list[int] = []
    for start in range(0, len(order), NEIGHBOURS):
        near = order[start : start + NEIGHBOURS]
        chance.shuffle(near)
        mixed += near
    return [mixed[start : start + batch] for start in range(0, len(mixed), batch)]


def _scores(opened: OpenClassifier, rows: Sequence[Sequence[int]], batches: Sequence[Sequence[int]]) -> Scores:
    """The softmax of every row (rows, labels), each batch in one engine run."""
    scores = np.zeros((len(rows), len(opened.manifest.labels)))
    for places in batches:
        batch = padded([rows[at] for at in places], opened.scorer.pad_id)
        logits = opened.engine.run(batch.token_ids, batch.attention_mask)
        for at, row in zip(places, logits, strict=True):
            scores[at] = applied("softmax", row)
    return scores


def report_of(found: Sequence[Dependence], sentences: int, settings: Settings) -> Report:
    """One row for each variant and class."""
    rows = [
        [
            f"{one.checkpoint} {one.variant}" if place == 0 else "",
            f"up to {each.below:g}",
            str(each.sentences),
            f"{each.flipped} ({each.flipped / each.sentences:.1%})",
            *(f"{move:.4f}" for move in each.moves),
        ]
        for one in found
        for place, each in enumerate(one.classes)
    ]
    headings = ("variant", "margin alone", "sentences", "label changed", "median change", "p95", "largest")
    note = (
        f"{sentences} held-out sentences, alone and in {settings.rounds} draws of batches of {settings.batch}; "
        "a change is that of the best label's score, in each sentence's worst draw"
    )
    remarks = [
        f"{one.checkpoint} {one.variant}: {one.flips} of {one.answers} answers have another label than alone "
        f"({one.flips / one.answers:.2%})"
        for one in found
    ]
    return Report([Table("answers among batch-mates", headings, rows, note)], {"variants": found}, remarks=remarks)
