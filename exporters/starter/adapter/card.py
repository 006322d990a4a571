"""The manifest of the adapter, and its card, which is written from the manifest alone."""

from __future__ import annotations

from pathlib import Path

from exporters.starter.cards import Part, Provenance, bullets, filled, of_adapter, of_training, percent, table_rows
from exporters.starter.sentiment.card import Data, Scores, Training, score_rows

TEMPLATE = Path(__file__).with_name("card.md")
METHOD = (
    "Low-rank adapters (Hu et al., 2021) on attention and feed-forward of the upper six layers and a fresh two-way "
    "head, everything else frozen; one pass over the labelled sentences of the train side, with label smoothing. The "
    "frozen layers ran in bf16, and the lower six without dropout."
)


class AdapterManifest(Part):
    """The manifest of a starter checkpoint that is an adapter. `base` are the packages that hold its base."""

    name: str
    task: str
    tier: str
    family: str
    architecture: str
    layers: int
    width: int
    parameters: int
    trained_parameters: int
    vocabulary: int
    labels: tuple[str, ...]
    stored_precision: str
    base_size_bytes: int
    base: tuple[Provenance, ...]
    data: Data
    scores: Scores
    training: Training
    licences: dict[str, str]
    limits: tuple[str, ...]
    files: dict[str, str]


def card(manifest: AdapterManifest) -> str:
    """The adapter's README in Markdown."""
    training = manifest.training
    return filled(
        TEMPLATE,
        manifest,
        manifest.limits,
        millions=manifest.parameters / 1e6,
        **of_adapter(manifest.trained_parameters, manifest.base_size_bytes),
        labels=" or ".join(f"`{label}`" for label in manifest.labels),
        table=table_rows(score_rows(manifest.scores)),
        dev=percent(training.dev_accuracy_by_epoch[-1]),
        packages=bullets(one.pinned for one in manifest.base),
        count=len(manifest.base),
        **of_training(training.wall_s, training.settings, training.libraries),
    )
