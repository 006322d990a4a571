"""The exporters' side of `/count`: a checkpoint is a list of words, and its variant a copy of it."""

from __future__ import annotations

import shutil

from exporters.kinds.kind import Kind, TitledProfile
from exporters.plan import Step, Workbench
from exporters.profiling import Advance
from gateway.model.profile import ProfileCell, ProfileDocument
from made_up_task.replica import WORDS_FILE, OpenCounter
from made_up_task.task import CounterManifest


def _make(bench: Workbench) -> CounterManifest:
    shutil.copyfile(bench.source.path / WORDS_FILE, bench.folder / WORDS_FILE)
    bench.progress(Step.PROFILING, 1.0)
    return CounterManifest(**bench.shared(), max_tokens=64, profile=_profile(bench.plan.threads))


def _profiled(opened: OpenCounter, threads: int, budget_s: float, advance: Advance) -> CounterManifest:
    return opened.manifest.model_copy(update={"profile": _profile(threads)})


def _profile(threads: int) -> ProfileDocument:
    cell = ProfileCell(batch=1, tokens=64, samples=1, p50_s=0.001, p95_s=0.002, min_s=0.001, max_s=0.002)
    return ProfileDocument(threads=threads, measured_on="a count", cells=(cell,))


COUNTER: Kind[CounterManifest, OpenCounter] = Kind(
    name="counter",
    described="a counter of words",
    task="count",
    engines=("onnx",),
    recognises=lambda path, config: config.get("model_type") == "counter",
    make=_make,
    profile=_profiled,
    agreement=lambda manifest: {"agreement": "exact"},
    profiles=lambda manifest: (TitledProfile(manifest.profile, "service time", "batch"),),
)
