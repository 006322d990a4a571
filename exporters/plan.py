"""The plan, settings and progress of an export.

Imports no engine library, so that the command line and the store can plan without one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict

from msgspec import Struct
from msgspec.structs import replace

from deployments.engines.host import Host
from deployments.replica.variant import file_sha256
from exporters.profiling import BUDGET_S, Advance, Watch, watch_beside, watch_here
from exporters.sources.source import SourceFolder
from gateway.model.manifest import Precision, SourceOf

EXPORTER_VERSION = "4"
LIBRARIES = ("torch", "transformers", "optimum-onnx", "onnx", "onnxruntime", "tokenizers")


PRECISIONS = {
    "onnx": (Precision.INT8, Precision.INT8_WEIGHTS, Precision.FP32),
    "openvino": (Precision.BF16,),
    "torch": (Precision.FP32,),
}
"""What each engine computes in."""


class Step(StrEnum):
    """The steps of an export, as progress shows them."""

    FETCHING = "fetching its base"
    LOADING = "loading"
    ASKING = "asking the source"
    EXPORTING = "exporting"
    QUANTISING = "quantising"
    CHOOSING = "choosing the engine"
    VERIFYING = "verifying"
    PROFILING = "profiling"


Progress = Callable[[Step, float], None]


class Candidate(Struct, frozen=True):
    """An engine and a precision that could run a checkpoint."""

    engine: str
    precision: Precision

    @property
    def variant(self) -> str:
        """The variant's name: engine and precision."""
        return f"{self.engine}-{self.precision}"


class VariantPlan(Struct, frozen=True):
    """The variant to make of a checkpoint, and the threads that it is profiled and served on.

    With `candidates`, in order of preference, the engine is `auto`: the fastest of them that holds is made. A lone run
    may have `lone_threads`.
    """

    checkpoint: str
    task: str
    family: str
    engine: str
    precision: Precision
    threads: int = 1
    candidates: tuple[Candidate, ...] = ()
    lone_threads: int = 1

    @property
    def variant(self) -> str:
        """The variant's name: engine and precision, or `auto`."""
        return self.engine if self.candidates else f"{self.engine}-{self.precision}"

    @property
    def tried(self) -> tuple[Candidate, ...]:
        """The candidates; of a plan without them its own engine and precision."""
        return self.candidates or (Candidate(self.engine, self.precision),)

    def of(self, candidate: Candidate) -> VariantPlan:
        """The plan for one of its candidates."""
        return replace(self, engine=candidate.engine, precision=candidate.precision, candidates=())


class Settings(Struct, frozen=True):
    """Thresholds and time budgets of an export.

    `floor` overrides the kind's floors of agreement with the source, from 0 to 1: the share of equal labels, equal
    summaries or equally chosen sentences. `drop` is the most accuracy or ROUGE-L that a variant may lose. An
    encoder-decoder is verified on as many texts as fit into the budget. Engines are raced within theirs, but three
    rounds at least. `provisional` skips profiling and marks the profile as measured on no host. `yielding` runs the job
    at the lowest priority, beside a gateway that serves, and profiles it by the processor time that it takes.
    """

    floor: float | None = None
    drop: float = 0.01
    profile_budget_s: float = BUDGET_S
    verification_budget_s: float = 60.0
    race_budget_s: float = 4.0
    provisional: bool = False
    yielding: bool = False


class Shared(TypedDict):
    """The manifest fields of every kind, except window and profile."""

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
    """One export in progress: its plan, its source, the variant's folder, and the progress callback."""

    plan: VariantPlan
    source: SourceFolder
    folder: Path
    host: Host
    settings: Settings
    progress: Progress

    def advance(self, step: Step) -> Advance:
        """A callback for the progress of a step, from 0 to 1."""
        return lambda share: self.progress(step, share)

    def profiling(self) -> Watch:
        """The watch for the latency profile."""
        budget_s, advance = self.settings.profile_budget_s, self.advance(Step.PROFILING)
        if self.settings.yielding:
            return watch_beside(self.plan.threads, budget_s, advance)
        return watch_here(budget_s, advance)

    def shared(self) -> Shared:
        """The manifest fields of every kind. Hashes every file of the folder, so call it last."""
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
            made_with=made_with() | ({"openvino": _version("openvino")} if plan.engine == "openvino" else {}),
        )

    def _features(self) -> tuple[str, ...]:
        flags = {Precision.INT8: self.host.dot_product, Precision.BF16: self.host.bf16}
        flag = flags.get(self.plan.precision)
        return () if flag is None else (flag,)


def made_with() -> dict[str, str]:
    """The versions of the exporter and of the libraries that affect a variant, read without importing them."""
    return {"exporter": EXPORTER_VERSION} | {name: _version(name) for name in LIBRARIES}


def raced_with(candidates: tuple[Candidate, ...]) -> str:
    """What the outcome of a race depends on beside the host: the candidates, and OpenVINO's version."""
    return f"{' '.join(one.variant for one in candidates)} openvino {_version('openvino')}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
