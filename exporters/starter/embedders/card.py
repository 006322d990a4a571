"""The manifest of a starter embedder, and its card, which is written from the manifest alone."""

from __future__ import annotations

from pathlib import Path

from exporters.starter.cards import Part, Provenance, filled, of_fetched

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
    return filled(
        TEMPLATE,
        manifest,
        manifest.limits,
        millions=manifest.parameters / 1e6,
        tasks=" and ".join(f"`{task}`" for task in manifest.tasks),
        pooling=" and ".join(manifest.pooling),
        length="normalised to length 1" if manifest.normalized else "not normalised",
        rank=100 * manifest.score.reciprocal_rank,
        first=f"{100 * manifest.score.first:.1f} %",
        conversion=f"\n{manifest.conversion}\n" if manifest.conversion else "",
        **of_fetched(manifest.fetched_bytes, manifest.packages, manifest.libraries),
    )
