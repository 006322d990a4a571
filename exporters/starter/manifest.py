"""What a starter checkpoint is, where it came from and how good it was measured to be: the file beside its weights.

Every figure in it is written by the build that measured it. Imports no training library, so anyone can check a
checkpoint against it.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

FILENAME = "manifest.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Provenance(_Part):
    """One package the checkpoint was made from, by the digest of its file on the registry."""

    what: str
    package: str
    version: str
    sha256: str
    licence: str
    by: str


class Data(_Part):
    """The sentences: their package, the split rule, how many fell on each side, the digest of `heldout.jsonl`."""

    origin: Provenance
    kept: str
    split_rule: str
    sentences: dict[str, int]
    heldout_sha256: str


class Score(_Part):
    """Accuracy over so many sentences, with its 95 % Wilson interval."""

    sentences: int
    accuracy: float
    low: float
    high: float


class Scores(_Part):
    """Measured on the files as shipped, computed in fp32. Settings and epochs were chosen on dev."""

    heldout: Score
    heldout_by_source: dict[str, Score]
    dev: Score


class Training(_Part):
    """How the weights came to be; `settings` is the recipe as run."""

    method: str
    teachers: tuple[str, ...]
    settings: dict[str, float | int | str | None]
    dev_accuracy_by_epoch: tuple[float, ...]
    kept_epoch: int
    wall_s: float
    build_wall_s: float
    threads: int
    libraries: dict[str, str]


class Manifest(_Part):
    """One starter checkpoint."""

    name: str
    task: str
    tier: str
    family: str
    architecture: str
    layers: int
    width: int
    parameters: int
    vocabulary: int
    labels: tuple[str, ...]
    stored_precision: str
    base: Provenance
    data: Data
    scores: Scores
    training: Training
    licences: dict[str, str]
    limits: tuple[str, ...]
    files: dict[str, str]


def read_manifest(folder: Path) -> Manifest:
    """The manifest in a checkpoint's folder. Raises `pydantic.ValidationError` when it is not one."""
    return Manifest.model_validate_json((folder / FILENAME).read_bytes())


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write the manifest into a checkpoint's folder."""
    (folder / FILENAME).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
