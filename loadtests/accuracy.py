"""`punctual bench accuracy`: every held-out sentence through HTTP, once for each checkpoint, against what was verified.

A gateway that mixes up answers, cuts texts or serves another variant than it says is found out here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import Progress

from deployments.replica.classify import open_classifier
from exporters.starter.data import HELDOUT, Sentence
from exporters.texts import LabelledText, VerificationSet
from gateway.api.headers import BUDGET, CHECKPOINT
from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.model.manifest import ClassifierManifest
from gateway.tasks import read_manifest
from gateway.tasks.classify import LabelScore
from loadtests.agreement import Agreement, Unanswered, judge
from loadtests.client import Client, Hung, NoReply, http_client
from loadtests.peers.engine import answer
from loadtests.processes import gateway
from loadtests.sentences import classify_body, heldout_sentences

WITHIN_S = 30.0

Advance = Callable[[], None]


@dataclass(frozen=True)
class AccuracySettings:
    """`against_source` runs the source of every checkpoint anew, which needs torch and takes its time."""

    concurrency: int = 8
    against_source: bool = False
    heldout: Path = HELDOUT


@dataclass(frozen=True)
class AccuracyReport:
    """Every checkpoint that was judged, and those that cannot be, for their labels are not the sentences'."""

    sentences: int
    checkpoints: tuple[Agreement, ...]
    skipped: tuple[str, ...]

    @property
    def faultless(self) -> bool:
        """Whether something was judged and nothing was wrong."""
        return bool(self.checkpoints) and not any(one.faults() for one in self.checkpoints)


def accuracy(
    catalog: Catalog, variants: Mapping[str, Path], settings: AccuracySettings, console: Console
) -> AccuracyReport:
    """Serves the catalog, asks, and compares. Raises LoadTestError."""
    with console.status("starting the gateway"), gateway(catalog, variants) as server:
        return accuracy_at(server.url, catalog, variants, settings, console)


def accuracy_at(
    url: str, catalog: Catalog, variants: Mapping[str, Path], settings: AccuracySettings, console: Console
) -> AccuracyReport:
    """The same of a gateway that runs already, with these variants."""
    sentences = heldout_sentences(settings.heldout)
    wanted = {sentence.label.casefold() for sentence in sentences}
    entries = catalog.of_task("classify")
    labels = {entry.name: _labels(variants[entry.name]) for entry in entries}
    judged = [entry for entry in entries if wanted <= {label.casefold() for label in labels[entry.name]}]
    with Progress(console=console) as bar:
        found = []
        for entry in judged:
            line = bar.add_task(entry.name, total=len(sentences))
            found.append(_checkpoint(url, entry, variants[entry.name], sentences, settings, partial(bar.advance, line)))
    skipped = tuple(entry.name for entry in entries if entry not in judged)
    return AccuracyReport(len(sentences), tuple(found), skipped)


def _labels(variant: Path) -> tuple[str, ...]:
    """The labels of a variant; none where it is no classifier, which the start of the gateway tells of."""
    manifest = read_manifest(variant)
    return manifest.labels if isinstance(manifest, ClassifierManifest) else ()


def _checkpoint(
    url: str,
    entry: CatalogEntry,
    variant: Path,
    sentences: Sequence[Sentence],
    settings: AccuracySettings,
    advance: Advance,
) -> Agreement:
    texts = [sentence.text for sentence in sentences]
    served = asyncio.run(_served(url, entry.name, texts, settings.concurrency, advance))
    opened = open_classifier(variant, threads=1)
    alone = [answer(opened, text)[0].label for text in texts]
    source = _source_labels(entry, texts) if settings.against_source else None
    return judge(opened.manifest, sentences, served, alone, source)


async def _served(
    url: str, checkpoint: str, texts: Sequence[str], concurrency: int, advance: Advance
) -> list[str | Unanswered]:
    async with http_client(f"{url}/classify", WITHIN_S, concurrency) as client:
        return await labels_of(client, checkpoint, texts, concurrency, advance)


async def labels_of(
    client: Client, checkpoint: str, texts: Sequence[str], concurrency: int, advance: Advance
) -> list[str | Unanswered]:
    """The best label of every text in the texts' order, `concurrency` of them asked at once."""
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
    """What the checkpoint itself answers, by torch."""
    from exporters.original import load_original  # torch and transformers, only where asked for
    from exporters.source import resolve_source
    from exporters.verify import source_logits

    original = load_original(resolve_source(entry.source, entry.revision))
    every = VerificationSet("held out", tuple(LabelledText(text) for text in texts))
    logits = source_logits(original.encode, original.run, every, lambda share: None)
    return [original.labels[int(best)] for best in logits.argmax(axis=1)]
