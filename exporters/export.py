"""Making one variant: load, export, quantise, verify, record, profile, sign. A variant is whole or it is not there."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from deployments.engines.host import DOT_PRODUCT_FLAGS, Host, read_host
from deployments.engines.opening import ONNX_FILE, open_engine_named
from deployments.engines.port import Engine
from deployments.tasks import TOKENIZER_FILE, ClassifyTask
from deployments.variant import file_sha256, open_variant
from exporters.errors import ExportFailed, VariantRefused
from exporters.profiling import BUDGET_S, SEED, measure_profile
from exporters.quantise import quantise
from exporters.selftest import record_self_test
from exporters.source import SourceFolder
from exporters.staging import replace_manifest, staged
from exporters.texts import VerificationSet
from exporters.verify import FLOORS, Floors, compare, source_logits, variant_logits
from gateway.manifest import ClassifierManifest, Precision, SelfTest, SourceOf, VariantManifest, write_manifest
from gateway.profile import ProfileDocument

if TYPE_CHECKING:
    from exporters.original import Original  # imports torch

EXPORTER_VERSION = "1"
LIBRARIES = ("torch", "transformers", "optimum-onnx", "onnx", "onnxruntime", "tokenizers")


class Step(StrEnum):
    """Where an export is, for a progress line."""

    LOADING = "loading"
    EXPORTING = "exporting"
    QUANTISING = "quantising"
    VERIFYING = "verifying"
    PROFILING = "profiling"


Progress = Callable[[Step, float], None]


class VariantPlan(Struct, frozen=True):
    """What to make of a checkpoint, and on how many threads it will be run and is to be profiled."""

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


def export(
    plan: VariantPlan,
    source: SourceFolder,
    out: Path,
    texts: VerificationSet,
    progress: Progress,
    floors: Floors | None = None,
    budget_s: float = BUDGET_S,
) -> VariantManifest:
    """Makes the variant in the folder `out`, which is replaced as a whole, and gives back its manifest.

    Raises SourceRefused, ExportFailed, or VariantRefused when it is under its floors (the precision's, unless given);
    `out` is then as it was. `budget_s` is the time for the latency profile.
    """
    host = read_host()
    _check(plan, host)
    progress(Step.LOADING, 0.0)
    from exporters.original import load_original  # torch and transformers: only from here on
    from exporters.quiet import quiet_libraries

    with quiet_libraries(), staged(out) as folder:
        original = load_original(source)
        _write_files(plan, original, source, folder, progress)
        texts = texts.known_to(original.labels)
        meant = source_logits(original.encode, original.run, texts, lambda p: progress(Step.VERIFYING, p / 2))
        labels, window, pad_id = original.labels, original.window, original.pad_id
        del original  # its memory is not to weigh on the profile
        engine = open_engine_named(plan.engine, folder, plan.threads)
        task = ClassifyTask.open(folder / TOKENIZER_FILE, labels, window, pad_id)
        said = variant_logits(engine, task, texts, lambda p: progress(Step.VERIFYING, 0.5 + p / 2))
        found = compare(meant, said, labels, texts, floors or FLOORS[plan.precision])
        if found.broken is not None:
            raise VariantRefused(plan.checkpoint, plan.variant, found.broken, found.differences)
        self_test = record_self_test(engine, task, texts)
        manifest = ClassifierManifest(
            checkpoint=plan.checkpoint,
            task=plan.task,
            family=plan.family,
            engine=plan.engine,
            precision=plan.precision,
            source=SourceOf(location=source.location, revision=source.revision, sha256=source.sha256),
            labels=labels,
            max_tokens=window,
            pad_token_id=pad_id,
            files={file.name: file_sha256(file) for file in sorted(folder.iterdir())},
            cpu_features=_features(plan, host),
            verification=found.verification,
            self_test=self_test,
            profile=_profile(engine, window, self_test, plan.threads, host, budget_s, progress),
            made_with=made_with(),
        )
        write_manifest(folder, manifest)
    return manifest


def profile_again(folder: Path, threads: int, progress: Progress, budget_s: float = BUDGET_S) -> VariantManifest:
    """Measures a finished variant's latency profile on this host and writes it into the manifest.

    Raises VariantRejected when the variant does not pass its self-test here.
    """
    opened = open_variant(folder, threads)
    manifest = opened.manifest
    profile = _profile(opened.engine, manifest.max_tokens, manifest.self_test, threads, read_host(), budget_s, progress)
    manifest = manifest.model_copy(update={"profile": profile})
    replace_manifest(folder, manifest)
    return manifest


def made_with() -> dict[str, str]:
    """Versions of the exporter and of the libraries a variant depends on, read without importing them."""
    return {"exporter": EXPORTER_VERSION} | {name: _version(name) for name in LIBRARIES}


def _check(plan: VariantPlan, host: Host) -> None:
    if plan.task != "classify":
        raise ExportFailed(f"{plan.checkpoint}: no export is known for the task {plan.task!r}")
    if plan.engine == "torch" and plan.precision is not Precision.FP32:
        raise ExportFailed(f"{plan.checkpoint}: the torch engine runs fp32 only")
    if plan.precision is Precision.INT8 and host.dot_product is None:
        raise ExportFailed(
            f"{plan.checkpoint}: int8 needs a processor with one of {', '.join(DOT_PRODUCT_FLAGS)}; "
            f"this is a {host.model}. Export fp32 instead"
        )


def _features(plan: VariantPlan, host: Host) -> tuple[str, ...]:
    return (host.dot_product,) if plan.precision is Precision.INT8 and host.dot_product else ()


def _write_files(plan: VariantPlan, original: Original, source: SourceFolder, folder: Path, progress: Progress) -> None:
    """The variant's own files into the folder: graph or weights, and the tokenizer."""
    progress(Step.EXPORTING, 0.0)
    original.save_tokenizer(folder)
    if plan.engine == "torch":
        for file in (source.path / "config.json", *source.path.glob("*.safetensors*")):
            shutil.copyfile(file, folder / file.name)
        return
    from exporters.graph import export_graph

    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        graph = Path(scratch)
        export_graph(original.model, graph)
        if plan.precision is Precision.INT8:
            progress(Step.QUANTISING, 0.0)
            quantise(graph / ONNX_FILE, folder / ONNX_FILE)
        else:
            for file in graph.glob(f"{ONNX_FILE}*"):
                file.rename(folder / file.name)


def _profile(
    engine: Engine,
    window: int,
    self_test: SelfTest,
    threads: int,
    host: Host,
    budget_s: float,
    progress: Progress,
) -> ProfileDocument:
    longest = max((golden.token_ids for golden in self_test.golden), key=len)
    return measure_profile(
        engine,
        window,
        longest,
        threads,
        host.kind,
        time.perf_counter,
        random.Random(SEED),
        budget_s,
        lambda share: progress(Step.PROFILING, share),
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
