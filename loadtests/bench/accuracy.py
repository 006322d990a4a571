"""`punctual bench accuracy`: compares labels served over HTTP with each checkpoint's verified accuracy.

It detects a gateway that mixes up answers, truncates texts or serves the wrong variant. Labels of all held-out
sentences are compared with the truth, the variant run alone, its manifest and, on request, its source run again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress

from deployments.replica.classify import open_classifier
from exporters.options import DEFAULT_CACHE, DEFAULT_CATALOG, CacheOption, CatalogOption
from exporters.sources.texts import HELDOUT, HELDOUT_NAME, Sentence
from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.model.manifest import ClassifierManifest
from gateway.model.request import BUDGET, CHECKPOINT
from gateway.tasks import read_manifest
from gateway.tasks.classify import LabelScore
from loadtests import options
from loadtests.bench.measuring.report import Report, Table, Verdict, present
from loadtests.bench.peers.engine import answer
from loadtests.bench.peers.servers import gateway
from loadtests.client import Client, Hung, NoReply, http_client
from loadtests.sentences import classify_body, heldout_sentences

WITHIN_S = 30.0
AGREEMENT_FLOOR = 0.985
TOLERANCE = 0.005
"""The share of labels that batching may change: dynamic int8 uses one activation scale for a whole batch."""


@dataclass(frozen=True)
class AccuracySettings:
    """Requests at once, and the data. `against_source` also runs every checkpoint's source, with torch; minutes."""

    concurrency: int = 8
    against_source: bool = False
    heldout: Path = HELDOUT


@dataclass(frozen=True)
class Unanswered:
    """A sentence without a label, and the reason."""

    why: str


@dataclass(frozen=True)
class Right:
    """The number of correctly labelled sentences: over HTTP, and by the variant run alone."""

    sentences: int
    served: int
    alone: int

    @property
    def served_share(self) -> float:
        """Accuracy over HTTP; an unanswered sentence counts as wrong."""
        return self.served / self.sentences

    @property
    def alone_share(self) -> float:
        """Accuracy of the variant run alone."""
        return self.alone / self.sentences


@dataclass(frozen=True)
class Agreement:
    """One checkpoint's comparison. Shares are from 0 to 1; None if there is nothing to compare with."""

    checkpoint: str
    variant: str
    overall: Right
    by_data_set: dict[str, Right]
    unanswered: dict[str, int]
    verified_accuracy: float | None
    manifest_agreement: float
    alone_agreement: float
    source_agreement: float | None

    @property
    def apart(self) -> int | None:
        """Correct labels over HTTP minus those of the variant's verification; None if not comparable."""
        if self.verified_accuracy is None:
            return None
        return self.overall.served - round(self.verified_accuracy * self.overall.sentences)

    @property
    def allowed(self) -> int:
        """The largest absolute value of `apart` that batching explains."""
        return int(TOLERANCE * self.overall.sentences)

    def faults(self) -> list[str]:
        """The faults in words; empty if the checkpoint answers over HTTP as verified."""
        found = [f"{count} sentences unanswered: {why}" for why, count in self.unanswered.items()]
        if self.apart is not None and abs(self.apart) > self.allowed:
            found.append(f"{self.apart:+d} right answers against its verification, over the {self.allowed} allowed")
        shares = {
            "the variant run alone": self.alone_agreement,
            "its source, by its manifest": self.manifest_agreement,
            "its source, run now": self.source_agreement,
        }
        found += [
            f"{share:.2%} of labels agree with {what}, under {AGREEMENT_FLOOR:.1%}"
            for what, share in shares.items()
            if share is not None and share < AGREEMENT_FLOOR
        ]
        return found


def command(
    catalog: CatalogOption = DEFAULT_CATALOG,
    cache: CacheOption = DEFAULT_CACHE,
    concurrency: Annotated[int, typer.Option(min=1, help="requests at once")] = AccuracySettings.concurrency,
    against_source: Annotated[
        bool, typer.Option("--against-source", help="also run every checkpoint's source, with torch")
    ] = False,
    json: options.Json = None,
) -> None:
    """Sends every held-out sentence over HTTP and compares accuracy with the verified one."""
    settings = AccuracySettings(concurrency, against_source)
    report = measure(*options.prepared(catalog, cache), settings, options.console)
    raise typer.Exit(present(report, options.console, json=json))


def measure(catalog: Catalog, variants: Mapping[str, Path], settings: AccuracySettings, console: Console) -> Report:
    """Serves the catalog, classifies all sentences, and compares the labels. Raises LoadTestError."""
    sentences = heldout_sentences(settings.heldout)
    wanted = {sentence.label.casefold() for sentence in sentences}
    entries = catalog.of_task("classify")
    judged = [one for one in entries if wanted <= {label.casefold() for label in _labels(variants[one.name])}]
    found = []
    with ExitStack() as stack:
        with console.status("starting the gateway"):
            url = stack.enter_context(gateway(catalog, variants)).url
        bar = stack.enter_context(Progress(console=console))
        for entry in judged:
            advance = partial(bar.advance, bar.add_task(entry.name, total=len(sentences)))
            found.append(_judged(url, entry, variants[entry.name], sentences, settings, advance))
    return report_of(len(sentences), found, [entry.name for entry in entries if entry not in judged])


def report_of(sentences: int, checkpoints: Sequence[Agreement], skipped: Sequence[str]) -> Report:
    """One row per checkpoint, one per data set below it, and the faults.

    `skipped` checkpoints have other labels than the sentences, so they cannot be judged. If no checkpoint was judged,
    the target is missed.
    """
    rows: list[Sequence[str]] = []
    for one in checkpoints:
        apart = "-" if one.apart is None else f"{one.apart:+d} sentences (of {one.allowed} allowed)"
        verified = (_share(one.verified_accuracy), apart)
        rows.append(_row(f"{one.checkpoint} {one.variant}", "all", one.overall, verified))
        rows += [_row("", name, right, ("", "")) for name, right in one.by_data_set.items()]
    faults = {one.checkpoint: one.faults() for one in checkpoints}
    verdicts = [Verdict(f"{name}: {fault}", met=False) for name, found in faults.items() for fault in found]
    good = [name for name, found in faults.items() if not found]
    verdicts += [Verdict(f"{name}: answers over HTTP as it was verified", met=True) for name in good]
    headings = ("checkpoint", "data set", "sentences", "over HTTP", "verified", "difference", "variant alone")
    return Report(
        tables=[Table("correct labels", headings, rows)],
        document={"sentences": sentences, "checkpoints": checkpoints, "skipped": skipped, "faults": faults},
        verdicts=verdicts or [Verdict("no checkpoint was judged", met=False)],
        remarks=[_agreements(one) for one in checkpoints],
        cautions=[f"not judged, since they have other labels: {', '.join(skipped)}"] if skipped else [],
    )


def _row(checkpoint: str, data_set: str, right: Right, verified: tuple[str, str]) -> Sequence[str]:
    shares = (f"{right.served_share:.2%}", *verified, f"{right.alone_share:.2%}")
    return (checkpoint, data_set, str(right.sentences), *shares)


def _agreements(one: Agreement) -> str:
    return (
        f"{one.checkpoint}: labels over HTTP agree with the variant run alone in {one.alone_agreement:.2%}; "
        f"with its source in {_share(one.source_agreement)} (run now), {one.manifest_agreement:.2%} (its manifest); "
        f"floor {AGREEMENT_FLOOR:.1%}"
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def judge(
    manifest: ClassifierManifest,
    sentences: Sequence[Sentence],
    served: Sequence[str | Unanswered],
    alone: Sequence[str],
    source: Sequence[str] | None,
) -> Agreement:
    """Compares labels in the sentences' order, ignoring case."""
    over_http = [label.casefold() if isinstance(label, str) else None for label in served]
    by_itself = [label.casefold() for label in alone]
    true = [sentence.label.casefold() for sentence in sentences]
    sets = [sentence.source for sentence in sentences]

    def right(at: Sequence[int]) -> Right:
        return Right(len(at), sum(over_http[i] == true[i] for i in at), sum(by_itself[i] == true[i] for i in at))

    checked = manifest.verification
    comparable = checked.data_set == HELDOUT_NAME and checked.texts == len(sentences)
    return Agreement(
        checkpoint=manifest.checkpoint,
        variant=manifest.variant,
        overall=right(range(len(sentences))),
        by_data_set={name: right([i for i, its in enumerate(sets) if its == name]) for name in dict.fromkeys(sets)},
        unanswered=dict(Counter(one.why for one in served if isinstance(one, Unanswered))),
        verified_accuracy=checked.accuracy if comparable else None,
        manifest_agreement=checked.label_agreement,
        alone_agreement=_equal(over_http, by_itself),
        source_agreement=None if source is None else _equal(over_http, [label.casefold() for label in source]),
    )


def _equal(left: Sequence[str | None], right: Sequence[str]) -> float:
    """The share of equal labels among answered sentences; 0 if there is none."""
    answered = [one == other for one, other in zip(left, right, strict=True) if one is not None]
    return sum(answered) / len(answered) if answered else 0.0


def _labels(variant: Path) -> tuple[str, ...]:
    """The labels of a variant; empty if it is no classifier, which the gateway refuses when it starts."""
    manifest = read_manifest(variant)
    return manifest.labels if isinstance(manifest, ClassifierManifest) else ()


def _judged(
    url: str,
    entry: CatalogEntry,
    variant: Path,
    sentences: Sequence[Sentence],
    settings: AccuracySettings,
    advance: Callable[[], None],
) -> Agreement:
    texts = [sentence.text for sentence in sentences]

    async def served() -> list[str | Unanswered]:
        async with http_client(f"{url}/classify", WITHIN_S, settings.concurrency) as client:
            return await labels_of(client, entry.name, texts, settings.concurrency, advance)

    labels = asyncio.run(served())
    opened = open_classifier(variant, threads=1)
    alone = [answer(opened, text)[0].label for text in texts]
    source = _source_labels(entry, texts) if settings.against_source else None
    return judge(opened.manifest, sentences, labels, alone, source)


async def labels_of(
    client: Client, checkpoint: str, texts: Sequence[str], concurrency: int, advance: Callable[[], None]
) -> list[str | Unanswered]:
    """The best label of every text, in order. Sends `concurrency` requests at once."""
    headers = {CHECKPOINT: checkpoint, BUDGET: f"{WITHIN_S * 1000:.0f}"}
    found: dict[int, str | Unanswered] = {}
    waiting = iter(enumerate(texts))

    async def ask() -> None:
        for at, text in waiting:
            found[at] = await _label(client, text, headers)
            advance()

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(ask())
    return [found[at] for at in range(len(texts))]


async def _label(client: Client, text: str, headers: Mapping[str, str]) -> str | Unanswered:
    try:
        reply = await client.post(classify_body(text), headers)
    except (NoReply, Hung) as error:
        return Unanswered(str(error))
    if reply.status != 200:
        return Unanswered(f"status {reply.status}")
    if reply.headers.get(CHECKPOINT.lower()) != headers[CHECKPOINT]:
        return Unanswered("answered by another checkpoint")
    try:
        return msgspec.json.decode(reply.body, type=list[list[LabelScore]])[0][0].label
    except (msgspec.DecodeError, IndexError):
        return Unanswered("the answer is no list of labels")


def _source_labels(entry: CatalogEntry, texts: Sequence[str]) -> list[str]:
    """The labels by the checkpoint's source, run with torch."""
    from exporters.kinds.classifier import source_labels  # loads torch and transformers
    from exporters.sources.source import resolve_source

    return source_labels(resolve_source(entry.source, entry.revision), texts)
