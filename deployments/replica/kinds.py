"""Registers the kinds of variant that replicas serve by name: how to open one, and what answers requests with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from deployments.replica.batched import Reading
from deployments.replica.totals import Totals
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.manifest import VariantManifest
from gateway.model.messages import Answer, Emit, Failure, LoadReport, Work, to_nobody


class Server(Protocol):
    """Answers work of one task with one variant."""

    def start(self) -> None:
        """Opens the queue on the running loop."""

    async def stop(self, grace_s: float) -> None:
        """Admits no more work and finishes what it can within `grace_s` seconds."""

    async def handle(self, batch: Sequence[Work], emit: Emit = to_nobody) -> Sequence[Answer | Failure]:
        """Answers a batch: one result for each request, in order. Cancelling it withdraws the work.

        Of requests that are `streamed`, `emit` may be called meanwhile, on the loop, with text that can no longer
        change. A server of a task without such text never calls it.
        """

    def load(self) -> LoadReport:
        """Reports how much work is still to do."""

    def totals(self) -> Totals:
        """The counts since the start."""


class OpenVariant(Protocol):
    """A variant that has passed its checks, ready to serve. Each kind has its own class."""

    @property
    def manifest(self) -> VariantManifest:
        """The manifest that describes it."""


@dataclass(frozen=True, slots=True)
class ReplicaKind:
    """How replicas serve one kind of variant.

    `files` names the files that it opens; each needs a digest in the manifest. `open` takes the folder, the manifest,
    the threads of one engine run and the runs at a time, repeats the golden answers and raises VariantRejected. `serve`
    takes the catalog entry, the open variant, the most inputs in the queue and the clock, and makes the server.
    """

    files: Callable[[Any], tuple[str, ...]]
    open: Callable[[Path, Any, int, int], OpenVariant]
    serve: Callable[[CatalogEntry, Any, int, Clock], Server]


KINDS: dict[str, str] = {
    "answerer": "deployments.replica.answering.replica",
    "causal": "deployments.replica.generate.replica",
    "classifier": "deployments.replica.classify",
    "embedder": "deployments.replica.embedding",
    "extractive": "deployments.replica.summarize.extractive",
    "filler": "deployments.replica.filling",
    "seq2seq": "deployments.replica.summarize.abstractive",
    "tagger": "deployments.replica.tagging.replica",
    "translator": "deployments.replica.translate.replica",
}
"""The module of each kind, with a `KIND`. It is imported only when a variant of the kind is opened."""


READINGS: dict[str, str] = {
    "answer": "deployments.replica.answering.sentences",
    "zero-shot": "deployments.replica.zero_shot",
}
"""The module of each task that reads variants of other tasks' kinds, with `READINGS`: what makes its reading of an open
variant, by kind. It is imported only where the task is served."""


def readings_of(tasks: Sequence[str], variant: OpenVariant) -> dict[str, Reading[Any]]:
    """The readings of a variant by those of these tasks that have their own."""
    own = {task: import_module(READINGS[task]).READINGS for task in tasks if task in READINGS}
    kind = variant.manifest.kind
    return {task: makers[kind](variant) for task, makers in own.items() if kind in makers}


def kind_named(name: str) -> ReplicaKind:
    """Finds the kind of that name. Raises KeyError if there is none."""
    kind: ReplicaKind = import_module(KINDS[name]).KIND
    return kind
