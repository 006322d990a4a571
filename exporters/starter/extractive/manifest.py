"""What an extractive starter checkpoint is, what it was made from and how good it was measured to be.

Every figure in it is written by the build that measured it. Imports no training library.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from exporters.starter.manifest import FILENAME, Provenance


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figures(_Part):
    """Mean ROUGE F1 in percent, with stemming."""

    rouge1: float
    rouge2: float
    rougeL: float
    rougeLsum: float


class Difference(_Part):
    """A mean gain in points with its 95 % interval, by paired bootstrap over the papers."""

    mean: float
    low: float
    high: float


class Held(_Part):
    """Extracts of three sentences of the papers of one split: this checkpoint's and what needs no model."""

    papers: int
    own: Figures
    lead: Figures
    chance: Figures
    oracle: Figures
    gain_over_lead: dict[str, Difference]


class General(_Part):
    """ROUGE-1 F1 in percent of an extract against the rest of its text, on texts that are no papers."""

    texts: int
    own: float
    lead: float


class Data(_Part):
    """What was learnt from and scored on; `heldout_sha256` is of the file beside the checkpoints."""

    papers: Provenance
    general: Provenance
    documents: dict[str, int]
    sentences: dict[str, int]
    heldout_sha256: str


class ExtractiveCheckpoint(_Part):
    """One extractive starter checkpoint; `validation` was scored with a ranker that had seen the train split alone."""

    name: str
    task: str
    tier: str
    encoder: str
    encoder_sha256: str
    layer: int
    layers: int
    max_tokens: int
    sentences: int
    recipe: dict[str, float | int | bool]
    data: Data
    test: Held
    validation: Held
    general: General
    wall_s: float
    libraries: dict[str, str]
    licences: dict[str, str]
    limits: tuple[str, ...]
    files: dict[str, str]


def read_manifest(folder: Path) -> ExtractiveCheckpoint:
    """The manifest in a checkpoint's folder. Raises `pydantic.ValidationError` when it is not one."""
    return ExtractiveCheckpoint.model_validate_json((folder / FILENAME).read_bytes())


def write_manifest(manifest: ExtractiveCheckpoint, folder: Path) -> None:
    """Write the manifest into a checkpoint's folder."""
    (folder / FILENAME).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
