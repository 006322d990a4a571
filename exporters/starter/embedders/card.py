"""The manifest of a starter embedder, and its card, which is written from the manifest alone."""

from __future__ import annotations

from pathlib import Path

from exporters.starter.publishing import Part, Provenance, bullets, named, render

TEMPLATE = Path(__file__).with_name("card.md")


class Score(Part):
    """How well synopses find their own descriptions among all: mean reciprocal rank and the share found first."""

    data_set: str
    data_sha256: str
    pairs: int
    reciprocal_rank: float
    first: float


class EmbedderCard(Part):
    """The manifest of a starter checkpoint that gives vectors. `packages` hold its weights."""

    name: str
    tasks: tuple[str, ...]
    tier: str
    family: str
    architecture: str
    layers: int
    width: int
    parameters: int
    window: int
    pooling: tuple[str, ...]
    normalized: bool
    fetched_bytes: int
    packages: tuple[Provenance, ...]
    conversion: str | None
    score: Score
    libraries: dict[str, str]
    licences: dict[str, str]
    limits: tuple[str, ...]
    files: dict[str, str]


def card(manifest: EmbedderCard) -> str:
    """The checkpoint's README in Markdown."""
    return render(
        TEMPLATE,
        m=manifest,
        millions=manifest.parameters / 1e6,
        megabytes=manifest.fetched_bytes / 1e6,
        tasks=" and ".join(f"`{task}`" for task in manifest.tasks),
        pooling=" and ".join(manifest.pooling),
        length="normalised to length 1" if manifest.normalized else "not normalised",
        rank=100 * manifest.score.reciprocal_rank,
        first=f"{100 * manifest.score.first:.1f} %",
        conversion=f"\n{manifest.conversion}\n" if manifest.conversion else "",
        packages=bullets(f"`{one.package}=={one.version}` (sha256 `{one.sha256}`)" for one in manifest.packages),
        libraries=named(manifest.libraries),
        limits=bullets(manifest.limits),
    )
