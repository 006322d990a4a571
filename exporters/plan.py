"""What to make of a checkpoint, how to judge it, and how far the making of it is.

Imports no engine's library: the command line and the store plan without one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict

from msgspec import Struct

from deployments.engines.host import Host
from deployments.replica.variant import file_sha256
from exporters.profiling import BUDGET_S, Advance
from exporters.source import SourceFolder
from gateway.model.manifest import Precision, SourceOf

EXPORTER_VERSION = "2"
LIBRARIES = ("torch", "transformers", "optimum-onnx", "onnx", "onnxruntime", "tokenizers")


class Step(StrEnum):
    """Where an export is, for a progress line."""

    LOADING = "loading"
    ASKING = "asking the source"
    EXPORTING = "exporting"
    QUANTISING = "quantising"
    VERIFYING = "verifying"
    PROFILING = "profiling"


Progress = Callable[[Step, float], None]


class VariantPlan(Struct, frozen=True):
    """What to make of a checkpoint, and on how many threads it is profiled and will run."""

    checkpoint: str
    task: str
    family: str
    engine: str
    precision: Precision
    threads: int = 1

    @property
    def variant(self) -> str:
        """Engine and precision, the variant's name."""
        return f"{self.engine}-{self.precision}"


class Settings(Struct, frozen=True):
    """How an export is judged and how long it may measure.

    `floor` takes the place of the kind's own floors of agreement with the source, from 0 to 1: the share of equal
    labels, of equal texts as written, or of equally chosen sentences. `drop` is the most accuracy or ROUGE-L that a
    variant may lose. The verification of an encoder-decoder takes fewer texts rather than run over its budget.
    `provisional` leaves a profile that says it was not measured on any host.
    """

    floor: float | None = None
    drop: float = 0.01
    profile_budget_s: float = BUDGET_S
    verification_budget_s: float = 60.0
    provisional: bool = False


class Shared(TypedDict):
    """The fields that every kind of manifest has, but for its window and its profile."""

    checkpoint: str
    task: str
    family: str
    engine: str
    precision: Precision
    source: SourceOf
    files: dict[str, str]
    cpu_features: tuple[str, ...]
    made_with: dict[str, str]


@dataclass(frozen=True)
class Workbench:
    """One export under way: its plan, the source, the folder that becomes the variant, who hears of progress."""

    plan: VariantPlan
    source: SourceFolder
    folder: Path
    host: Host
    settings: Settings
    progress: Progress

    def advance(self, step: Step) -> Advance:
        """Reports how much of a step is done, as a share of it."""
        return lambda share: self.progress(step, share)

    def shared(self) -> Shared:
        """The manifest's fields that every kind has. Digests every file of the folder, so call it last."""
        plan, source = self.plan, self.source
        return Shared(
            checkpoint=plan.checkpoint,
            task=plan.task,
            family=plan.family,
            engine=plan.engine,
            precision=plan.precision,
            source=SourceOf(location=source.location, revision=source.revision, sha256=source.sha256),
            files={file.name: file_sha256(file) for file in sorted(self.folder.iterdir())},
            cpu_features=self._features(),
            made_with=made_with(),
        )

    def _features(self) -> tuple[str, ...]:
        relies = self.plan.precision is Precision.INT8 and self.host.dot_product is not None
        return (str(self.host.dot_product),) if relies else ()


def made_with() -> dict[str, str]:
    """Versions of the exporter and of the libraries a variant depends on, read without importing them."""
    return {"exporter": EXPORTER_VERSION} | {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
