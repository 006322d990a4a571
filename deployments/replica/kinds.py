"""The kinds of variant that replicas serve, registered by name: how each is opened, and what answers with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from deployments.replica.totals import Totals
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.manifest import VariantManifest
from gateway.model.messages import Answer, Failure, LoadReport, Work


class Server(Protocol):
    """Answers work of one task with one variant."""

    def start(self) -> None:
        """Opens the queue, on the running loop."""

    async def stop(self, grace_s: float) -> None:
        """Admits nothing more and finishes what it can within the grace."""

    async def handle(self, work: Work) -> Answer | Failure:
        """Answers one piece of work. Cancelling it withdraws it."""

    def load(self) -> LoadReport:
        """How much is still to be done."""

    def totals(self) -> Totals:
        """What was counted since the start."""


class OpenVariant(Protocol):
    """A variant that has passed its checks, ready to run; each kind has its own."""

    @property
    def manifest(self) -> VariantManifest:
        """What it is."""


@dataclass(frozen=True, slots=True)
class ReplicaKind:
    """How replicas serve one kind of variant.

    `files` names what it opens, each of which must have a digest in the manifest. `open` opens it and repeats its
    golden answers; it raises VariantRejected. `serve` makes the server, which may hold so many inputs in its queue.
    """

    files: Callable[[Any], tuple[str, ...]]
    open: Callable[[Path, Any, int], OpenVariant]
    serve: Callable[[CatalogEntry, Any, int, Clock], Server]


KINDS: dict[str, str] = {
    "classifier": "deployments.replica.classify",
    "extractive": "deployments.replica.summarize.extractive",
    "seq2seq": "deployments.replica.summarize.abstractive",
}
"""The module of each kind, whose `KIND` says how it is served. It is imported when a variant of the kind is opened."""


def kind_named(name: str) -> ReplicaKind:
    """The kind of that name. Raises KeyError where there is none."""
    kind: ReplicaKind = import_module(KINDS[name]).KIND
    return kind
