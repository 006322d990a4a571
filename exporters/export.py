"""Makes one variant of a checkpoint in a folder, atomically.

The checkpoint's kind (`exporters.kinds`) knows how to load, export, quantise, verify and profile it.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deployments.engines.host import BF16_FLAGS, DOT_PRODUCT_FLAGS, Host, read_host
from deployments.engines.opening import EngineSize, open_engine_named
from deployments.replica.variant import open_variant
from exporters.errors import ExportFailed, SourceRefused
from exporters.kinds import KINDS, Kind, kind_of, lone_threads_here
from exporters.plan import PRECISIONS, Candidate, Progress, Settings, Step, VariantPlan, Workbench
from exporters.profiling import BUDGET_S, LONE_BUDGET_SHARE, Watch, measure_lone, watch_here
from exporters.sources.source import SourceFolder
from exporters.sources.staging import partial_prefix, staged
from gateway.model.manifest import MANIFEST_NAME, Precision, VariantManifest, write_manifest
from gateway.tasks import kind_of as served_kind
from gateway.tasks import tasks_of

CHATTY = ("optimum", "transformers", "torch.onnx", "onnxruntime", "huggingface_hub", "onnxscript")
NOT_MEASURED = "not measured"
"""The host of a provisional profile: it equals no other, so the next start measures again."""


def export(
    plan: VariantPlan, source: SourceFolder, out: Path, progress: Progress, settings: Settings | None = None
) -> VariantManifest:
    """Makes the variant, replaces the folder `out` with it atomically, and returns its manifest.

    Raises SourceRefused, ExportFailed, or VariantRefused if the variant is under its floors (the kind's for the
    precision, unless the settings override them). After an exception `out` is unchanged.
    """
    host, kind = read_host(), kind_of(source.path, source.location, plan.task)
    check_plan(plan, kind, source.location, host)
    progress(Step.LOADING, 0.0)
    with quiet_libraries(), staged(out) as folder:
        bench = Workbench(plan, source, folder, host, settings or Settings(), progress)
        manifest: VariantManifest = kind.make(bench)
        _check_lacks(manifest, source.location)
        if not bench.settings.provisional:
            manifest = with_lone_runs(manifest, folder, plan.threads, plan.lone_threads, bench.profiling())
        if bench.settings.provisional:
            profile = manifest.profile.model_copy(update={"measured_on": NOT_MEASURED})
            manifest = manifest.model_copy(update={"profile": profile})
        write_manifest(folder, manifest)
    return manifest


def profile_again(
    folder: Path, threads: int, progress: Progress, budget_s: float = BUDGET_S, *, lone_threads: int = 1
) -> VariantManifest:
    """Measures a finished variant's latency profile on this host and writes it into the manifest.

    Raises VariantRejected if the variant fails its self-test.
    """

    def advance(share: float) -> None:
        progress(Step.PROFILING, share)

    opened = open_variant(folder, threads)
    manifest: VariantManifest = KINDS[opened.manifest.kind].profile(opened, threads, budget_s, advance)
    manifest = with_lone_runs(manifest, folder, threads, lone_threads, watch_here(budget_s, advance))
    replace_manifest(folder, manifest)
    return manifest


def with_lone_runs(
    manifest: VariantManifest, folder: Path, threads: int, lone_threads: int, watch: Watch
) -> VariantManifest:
    """The manifest with how much faster lone runs are on this host; without, where there are none."""
    golden, here = KINDS[manifest.kind].golden, lone_threads_here(manifest, threads, lone_threads)
    if golden is None or here is None:
        return manifest
    lone = open_engine_named(manifest.engine, folder, EngineSize(here, 1, manifest.max_tokens, lone=True))
    usual = open_engine_named(manifest.engine, folder, EngineSize(threads, 1, manifest.max_tokens))
    watch = watch.part(0, LONE_BUDGET_SHARE)
    measured = measure_lone(usual, lone, (threads, here), manifest.max_tokens, golden(manifest), watch)
    return manifest.model_copy(update={"profile": manifest.profile.model_copy(update={"lone": measured})})


def _check_lacks(manifest: VariantManifest, location: str) -> None:
    """Raises SourceRefused if a variant lacks what its task needs."""
    missing = served_kind(manifest).lacks(manifest)
    if missing is not None:
        raise SourceRefused(f"{location}: the task {manifest.task!r} needs {missing}")


def check_plan(plan: VariantPlan, kind: Kind[Any, Any], location: str, host: Host) -> None:
    """Checks that this kind of checkpoint can be made into the planned variant on this host.

    Raises SourceRefused if the kind does not serve the task, and ExportFailed if the engine cannot run it.
    """
    serves = tuple(dict.fromkeys((kind.task, *tasks_of(kind.name))))
    if plan.task not in serves:
        listed = " and ".join(map(repr, serves))
        raise SourceRefused(
            f"{location}: is {kind.described}, which serves the task{'s' * (len(serves) > 1)} {listed}; "
            f"the task of {plan.checkpoint} is {plan.task!r}"
        )
    for one in plan.tried:
        _check_candidate(one, plan.checkpoint, kind, host)


def _check_candidate(one: Candidate, checkpoint: str, kind: Kind[Any, Any], host: Host) -> None:
    if one.engine not in kind.engines:
        runs = ", ".join(f"{each.name}s" for each in KINDS.values() if one.engine in each.engines) or "nothing"
        raise ExportFailed(f"{checkpoint}: the {one.engine} engine runs {runs} only, and this is {kind.described}")
    if one.precision not in PRECISIONS[one.engine]:
        raise ExportFailed(f"{checkpoint}: the {one.engine} engine runs {' and '.join(PRECISIONS[one.engine])} only")
    needed = {
        Precision.INT8: (host.dot_product, DOT_PRODUCT_FLAGS),
        Precision.BF16: (host.bf16, BF16_FLAGS),
        Precision.INT8_WEIGHTS: ("any", ()),
        Precision.FP32: ("any", ()),
    }
    found, flags = needed[one.precision]
    if found is None:
        raise ExportFailed(
            f"{checkpoint}: {one.precision} needs a processor with one of {', '.join(flags)}; "
            f"this is a {host.model}. Export fp32 instead"
        )
    if one.engine == "openvino" and find_spec("openvino") is None:
        raise ExportFailed(f"{checkpoint}: OpenVINO is not installed: pip install 'punctual[openvino]'")


def replace_manifest(folder: Path, manifest: VariantManifest) -> None:
    """Replaces a variant's manifest atomically."""
    with tempfile.TemporaryDirectory(prefix=partial_prefix(folder), dir=folder.parent) as beside:
        write_manifest(Path(beside), manifest)
        os.replace(Path(beside) / MANIFEST_NAME, folder / MANIFEST_NAME)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Raises the export libraries' log level to errors inside the block."""
    from optimum.utils import logging as optimum_logging  # imported at export time only
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in (*CHATTY, None)]  # the quantiser logs on the root
    levels = [logger.level for logger in loggers]
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    optimum_logging.set_verbosity_error()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
