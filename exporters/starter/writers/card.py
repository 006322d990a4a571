"""The manifest of a starter that writes on, and its card, which is written from the manifest alone."""

from __future__ import annotations

from pathlib import Path

from exporters.starter.cards import Part, Provenance, filled, of_fetched

TEMPLATE = Path(__file__).with_name("card.md")


class Score(Part):
    """How many plain questions are answered right, and how well texts are predicted.

    `nats` is the mean negative log-likelihood of a text's token after those before it.
    """

    questions: int
    questions_sha256: str
    right: int
    texts: int
    texts_of: str
    tokens: int
    nats: float


class WriterCard(Part):
    """The manifest of a starter checkpoint that writes on. `packages` hold its weights and its tokenizer."""

    name: str
    task: str
    tier: str
    family: str
    architecture: str
    layers: int
    width: int
    parameters: int
    window: int
    past_bytes: int
    fetched_bytes: int
    packages: tuple[Provenance, ...]
    conversion: str
    score: Score
    libraries: dict[str, str]
    licences: dict[str, str]
    limits: tuple[str, ...]
    files: dict[str, str]


def card(manifest: WriterCard) -> str:
    """The checkpoint's README in Markdown."""
    return filled(
        TEMPLATE,
        manifest,
        manifest.limits,
        millions=manifest.parameters / 1e6,
        past_kb=manifest.past_bytes / 1e3,
        past_mb=manifest.past_bytes * manifest.window / 1e6,
        share=100 * manifest.score.right / manifest.score.questions,
        **of_fetched(manifest.fetched_bytes, manifest.packages, manifest.libraries),
    )
