"""What the summarising starter checkpoint is, where it came from and how good it was measured to be.

The same file beside the weights that the classifiers have, with what a summariser has instead of labels. Every figure
in it is written by the build that measured it. Imports no training library, so anyone can check a checkpoint with it.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from exporters.starter.manifest import FILENAME, Provenance

Figure = tuple[float, float, float]
"""A mean in points, and the bounds of its 95 % bootstrap interval."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(_Part):
    """The pairs: what they are, the split rule, how many fell on each side, the digest of the held-out file."""

    what: str
    by: str
    releases: tuple[str, ...]
    licence: str
    kept: str
    split_rule: str
    pairs: dict[str, int]
    heldout_sha256: str


class Score(_Part):
    """ROUGE F1 with stemming over so many texts."""

    texts: int
    rouge1: Figure
    rouge2: Figure
    rougeL: Figure


class Scores(_Part):
    """Measured on the files as shipped, computed in fp32: beam search as configured, greedy, and two baselines."""

    beam: Score
    greedy: Score
    first_sentence: Score
    first_words: Score
    margin: Figure
    """Points of ROUGE-L of beam search above the first sentence, on the same texts."""


class Training(_Part):
    """How the weights came to be; `settings` is the recipe as run."""

    method: str
    settings: dict[str, float | int | str | None]
    steps: int
    epochs: float
    loss: float
    wall_s: float
    threads: int
    libraries: dict[str, str]


class Example(_Part):
    """One held-out text, what people called it and what the checkpoint does."""

    text: str
    people: str
    checkpoint: str
    rougeL: float


class SummariserManifest(_Part):
    """The summarising starter checkpoint."""

    name: str
    task: str
    tier: str
    family: str
    architecture: str
    encoder_layers: int
    decoder_layers: int
    width: int
    parameters: int
    vocabulary: int
    stored_precision: str
    text_tokens: int
    generation: dict[str, float | int | bool]
    base: Provenance
    data: Data
    heldout: Scores
    dev: Scores
    training: Training
    examples: tuple[Example, ...]
    licences: dict[str, str]
    limits: tuple[str, ...]
    files: dict[str, str]


def read_summariser(folder: Path) -> SummariserManifest:
    """The manifest in the checkpoint's folder. Raises `pydantic.ValidationError` when it is not one."""
    return SummariserManifest.model_validate_json((folder / FILENAME).read_bytes())


def write_summariser(manifest: SummariserManifest, folder: Path) -> None:
    """Write the manifest into the checkpoint's folder."""
    (folder / FILENAME).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
