"""Makes the card of a checkpoint, its README in Markdown, from its manifest alone, so that no figure is copied by hand.

A recipe has a template and says what is its own; what several cards say of their checkpoints is said here. Imports no
training library, so that anyone can make a card anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from exporters.sources.registry import Package
from exporters.starter.packages import MINILM


class Part(BaseModel):
    """A part of a manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Provenance(Part):
    """A package that the checkpoint was made from, with the digest of its file on the registry."""

    what: str
    package: str
    version: str
    sha256: str
    licence: str
    by: str

    @classmethod
    def of(cls, package: Package, what: str, by: str) -> Provenance:
        """The provenance of the part `what` of a package, made by `by`."""
        return cls(
            what=what,
            package=package.name,
            version=package.version,
            sha256=package.sha256,
            licence=package.licence,
            by=by,
        )

    @property
    def pinned(self) -> str:
        """The package with its version and digest, in Markdown."""
        return f"`{self.package}=={self.version}` (sha256 `{self.sha256}`)"


def minilm() -> Provenance:
    """The provenance of the base checkpoint."""
    by = "the sentence-transformers authors, from MiniLM by Microsoft"
    return Provenance.of(MINILM, "all-MiniLM-L6-v2 weights (sentence-transformers)", by)


def filled(template: Path, manifest: Part, limits: Iterable[str], **own: object) -> str:
    """The card: a template for `str.format`, filled with the manifest as `m`, its limits, and values of its own."""
    return template.read_text(encoding="utf-8").format(m=manifest, limits=bullets(limits), **own)


def of_training(wall_s: float, settings: Mapping[str, object], libraries: Mapping[str, str]) -> dict[str, object]:
    """What a card says of a training: how long it took, its settings, and its libraries."""
    return {"minutes": wall_s / 60, "settings": settings_table(settings), "libraries": named(libraries)}


def of_adapter(trained_parameters: int, base_size_bytes: int) -> dict[str, object]:
    """What a card says of an adapter: the millions of parameters trained, and the megabytes of its base."""
    return {"trained": trained_parameters / 1e6, "base_megabytes": base_size_bytes / 1e6}


def of_fetched(size_bytes: int, packages: Iterable[Provenance], libraries: Mapping[str, str]) -> dict[str, object]:
    """What a card says of fetched weights: their megabytes, their packages, and the libraries that read them."""
    return {
        "megabytes": size_bytes / 1e6,
        "packages": bullets(one.pinned for one in packages),
        "libraries": named(libraries),
    }


def sources(origins: Iterable[Provenance]) -> str:
    """A list of what a checkpoint learnt from, each with its makers, its package and its licence."""
    return bullets(f"{one.what}, by {one.by}: {one.pinned}, {one.licence}" for one in origins)


def named(libraries: Mapping[str, str]) -> str:
    """The libraries and their versions as one line of a card."""
    return ", ".join(f"{name} {number}" for name, number in libraries.items())


def settings_table(settings: Mapping[str, object]) -> str:
    """A recipe's settings as a Markdown table."""
    rows = table_rows((key, str(value)) for key, value in settings.items() if value is not None)
    return f"| setting | value |\n|---|---|\n{rows}"


def table_rows(rows: Iterable[Sequence[str]]) -> str:
    """The rows of a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def bullets(points: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {point}" for point in points)


def percent(share: float) -> str:
    """A share in per cent, to one decimal."""
    return f"{100 * share:.1f} %"
