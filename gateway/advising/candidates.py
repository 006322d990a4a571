"""The checkpoints that advice chooses among: those of catalogs that serve the task, and public ones.

It knows what catalogs, manifests and the knowledge say of each. It forecasts and judges nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from gateway.advising.knowledge import Architecture, Knowledge, PublicCheckpoint
from gateway.advising.shape import Shape
from gateway.advising.timing import Basis
from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.model.manifest import VariantManifest

Status: TypeAlias = Literal["served", "prepared", "catalog", "public"]
"""Where a checkpoint is: served by this gateway, made for this host, in a catalog, or published."""


@dataclass(frozen=True)
class Held:
    """A variant of a checkpoint that is at hand, and its bytes: of its files, or resident where it is served."""

    manifest: VariantManifest
    file_bytes: int | None = None
    resident_bytes: int | None = None


@dataclass(frozen=True)
class Offered:
    """A catalog, the variants at hand by checkpoint, and whether a gateway serves them.

    `shapes` has those that were read from checkpoints' own configurations, by source.
    """

    catalog: Catalog
    held: Mapping[str, Held] = field(default_factory=dict)
    served: bool = False
    shapes: Mapping[str, Shape] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """One checkpoint that may be right. `ready` says whether it answers the task without being fine-tuned for it."""

    name: str
    family: str
    source: str
    licence: str
    status: Status
    ready: bool
    architecture: Architecture | None
    shape: Shape | None = None
    known: PublicCheckpoint | None = None
    entry: CatalogEntry | None = None
    catalog: str | None = None
    held: Held | None = None

    @property
    def domain(self) -> str | None:
        """The subject that it was made for: by its catalog, else by its pretraining."""
        if self.entry is not None and self.entry.domain is not None:
            return self.entry.domain
        return None if self.known is None else self.known.domain


def candidates(task: str, known: Knowledge, offers: Sequence[Offered]) -> list[Candidate]:
    """The catalogs' checkpoints of the task, then public ones whose architecture does what the task asks.

    Of catalogs with equal sources the first counts. A public one whose own source a catalog has is that of the catalog.
    """
    listed: list[Candidate] = []
    sources: set[str] = set()
    for offered in offers:
        listed += [one for one in _of_catalog(task, known, offered) if one.source not in sources]
        sources.update(one.source for one in listed)
    does = known.tasks[task].does
    for public in known.checkpoints:
        architecture = known.families[public.family].architecture
        if public.hub is None or public.hub in sources:
            continue
        able = known.architectures[architecture].does == does and not public.nothing_else
        if able or task in public.answers:
            listed.append(_public(public, public.hub, task, architecture))
    return listed


def _public(public: PublicCheckpoint, hub: str, task: str, architecture: Architecture) -> Candidate:
    return Candidate(
        name=public.name,
        family=public.family,
        source=hub,
        licence=public.licence,
        status="public",
        ready=task in public.answers,
        architecture=architecture,
        shape=public.shape,
        known=public,
    )


def set_aside(task: str, known: Knowledge) -> dict[Architecture, list[str]]:
    """The families whose architecture is for something else than the task, by architecture."""
    does = known.tasks[task].does
    others: dict[Architecture, list[str]] = {}
    for name, family in known.families.items():
        if known.architectures[family.architecture].does != does:
            others.setdefault(family.architecture, []).append(name)
    return others


def bases(known: Knowledge, offers: Iterable[Offered]) -> list[Basis]:
    """The measured checkpoints at hand whose shapes are known: what estimates begin from."""
    found = []
    for offered in offers:
        for name, held in offered.held.items():
            entry = offered.catalog.by_name(name)
            shape = None if entry is None else _shape_of(entry, known, offered)
            if shape is not None:
                found.append(Basis.of(held.manifest, shape))
    return found


def _of_catalog(task: str, known: Knowledge, offered: Offered) -> Iterable[Candidate]:
    for entry in offered.catalog.of_task(task):
        held = offered.held.get(entry.name)
        here: Status = "served" if offered.served else "prepared"
        yield Candidate(
            name=entry.name,
            family=entry.family,
            source=entry.source,
            licence=entry.licence,
            status="catalog" if held is None else here,
            ready=True,
            architecture=known.architecture_of(entry.family),
            shape=_shape_of(entry, known, offered),
            known=known.of_source(entry.source),
            entry=entry,
            catalog=offered.catalog.name,
            held=held,
        )


def _shape_of(entry: CatalogEntry, known: Knowledge, offered: Offered) -> Shape | None:
    """The shape of a checkpoint: by its own configuration if that was read, else by what is known of its source."""
    public = known.of_source(entry.source)
    return offered.shapes.get(entry.source) or (None if public is None else public.shape)
