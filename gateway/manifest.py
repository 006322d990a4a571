"""The manifest of a variant: what it is, where it came from, how well it agrees with its source, how fast it is.

Exporters write it, replicas check it before they serve, the gateway forecasts from its latency profile.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from gateway.profile import ProfileDocument

MANIFEST_NAME = "manifest.json"
FORMAT = 1


class Precision(StrEnum):
    """The number format of a variant's weights."""

    FP32 = "fp32"
    INT8 = "int8"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceOf(_Frozen):
    """The checkpoint a variant was made from: a folder or Hub id, its revision, and a digest of its files."""

    location: str
    revision: str
    sha256: str


class Verification(_Frozen):
    """How a variant compares with its source over `texts` texts, and the floors it had to reach.

    Agreements and accuracies are shares from 0 to 1; accuracies are None where the texts bear no labels.
    """

    texts: int = Field(ge=1)
    data_set: str
    label_agreement: float = Field(ge=0, le=1)
    label_agreement_floor: float = Field(ge=0, le=1)
    largest_logit_difference: float = Field(ge=0)
    accuracy: float | None = Field(default=None, ge=0, le=1)
    source_accuracy: float | None = Field(default=None, ge=0, le=1)
    accuracy_drop_ceiling: float = Field(default=0.01, ge=0, le=1)


class GoldenInput(_Frozen):
    """A text, the token ids its tokenizer must give, and the logits its engine must give within the tolerance."""

    text: str
    token_ids: tuple[int, ...]
    logits: tuple[float, ...]


class SelfTest(_Frozen):
    """What a replica re-checks before it becomes ready: each golden input run alone, logits within `tolerance`."""

    tolerance: float = Field(gt=0)
    golden: tuple[GoldenInput, ...] = Field(min_length=1)


class VariantManifest(_Frozen):
    """One runnable form of a checkpoint, complete: nothing else need be read to serve or to judge it."""

    format: int = FORMAT
    checkpoint: str
    task: str
    family: str
    engine: str
    precision: Precision
    source: SourceOf
    labels: tuple[str, ...]
    max_tokens: int = Field(ge=1, description="the window: tokens of one input, specials included")
    pad_token_id: int = Field(default=0, ge=0, description="what a shorter text of a batch is filled up with")
    files: dict[str, str] = Field(description="sha256 of every file of the variant by its name")
    cpu_features: tuple[str, ...] = Field(description="flags of /proc/cpuinfo that its speed or correctness relies on")
    verification: Verification
    self_test: SelfTest
    profile: ProfileDocument
    made_with: dict[str, str] = Field(description="library versions by name")

    @property
    def variant(self) -> str:
        """The variant's name by the glossary: engine and precision."""
        return f"{self.engine}-{self.precision}"


def read_manifest(folder: Path) -> VariantManifest:
    """The manifest in a variant's folder. Raises FileNotFoundError, or pydantic's ValidationError."""
    return VariantManifest.model_validate_json((folder / MANIFEST_NAME).read_bytes())


def write_manifest(folder: Path, manifest: VariantManifest) -> None:
    """Writes the manifest, last of a variant's files: a folder without one is not a variant."""
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1) + "\n")
