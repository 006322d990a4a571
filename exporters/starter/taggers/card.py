"""The manifest of a starter tagger, and its card, which is written from the manifest alone."""

from __future__ import annotations

from pathlib import Path

from exporters.starter.cards import Part, Provenance, filled, of_fetched

TEMPLATE = Path(__file__).with_name("card.md")


class Score(Part):
    """How well entities are found, from 0 to 1, on texts with entities marked by hand.

    Precision, recall and F1 are of entities with the right kind from the first character to the last. `covered` and
    `spoilt` are the shares of characters, within entities and outside, that redaction takes out.
    """

    data_set: str
    data_sha256: str
    texts: int
    entities: int
    precision: float
    recall: float
    f1: float
    covered: float
    spoilt: float


class TaggerCard(Part):
    """The manifest of a starter checkpoint that labels tokens. `packages` hold its weights."""

    name: str
    task: str
    tier: str
    domain: str
    family: str
    architecture: str
    layers: int
    width: int
    parameters: int
    window: int
    aggregation: str
    kinds: tuple[str, ...]
    fetched_bytes: int
    packages: tuple[Provenance, ...]
    conversion: str
    score: Score
    libraries: dict[str, str]
    licences: dict[str, str]
    limits: tuple[str, ...]
    files: dict[str, str]


def card(manifest: TaggerCard) -> str:
    """The checkpoint's README in Markdown."""
    score = manifest.score
    return filled(
        TEMPLATE,
        manifest,
        manifest.limits,
        millions=manifest.parameters / 1e6,
        kinds=", ".join(f"`{one}`" for one in manifest.kinds),
        precision=100 * score.precision,
        recall=100 * score.recall,
        f1=100 * score.f1,
        covered=100 * score.covered,
        spoilt=100 * score.spoilt,
        **of_fetched(manifest.fetched_bytes, manifest.packages, manifest.libraries),
    )
