"""Making one variant: load, ask, export, quantise, verify, record, profile, sign. It is whole or it is not there.

What each of these is depends on the checkpoint's kind and stands in a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deployments.engines.host import DOT_PRODUCT_FLAGS, Host, read_host
from deployments.replica.classify import OpenClassifier
from deployments.replica.summarize.abstractive import OpenSeq2Seq
from deployments.replica.summarize.extractive import OpenExtractive
from deployments.replica.variant import open_variant
from exporters.classifier import make_classifier, profile_classifier
from exporters.errors import ExportFailed, SourceRefused
from exporters.extractive import make_extractive, profile_extractive
from exporters.plan import Progress, Settings, Step, VariantPlan, Workbench
from exporters.profiling import BUDGET_S
from exporters.seq2seq import make_seq2seq, profile_seq2seq
from exporters.source import Kind, SourceFolder, kind_of
from exporters.staging import replace_manifest, staged
from gateway.model.manifest import Precision, VariantManifest, write_manifest
from gateway.tasks import tasks_of

MAKERS: dict[Kind, Callable[[Workbench], VariantManifest]] = {
    Kind.CLASSIFIER: make_classifier,
    Kind.EXTRACTIVE: make_extractive,
    Kind.SEQ2SEQ: make_seq2seq,
}


NOT_MEASURED = "not measured"
"""The host of a provisional profile: equal to no other, so that a start measures anew."""


def export(
    plan: VariantPlan, source: SourceFolder, out: Path, progress: Progress, settings: Settings | None = None
) -> VariantManifest:
    """Makes the variant in the folder `out`, which is replaced as a whole, and gives back its manifest.

    Raises SourceRefused, ExportFailed, or VariantRefused when it is under its floors (the kind's own for the
    precision, unless the settings say otherwise); `out` is then as it was.
    """
    host, kind = read_host(), kind_of(source.path, source.location)
    check_plan(plan, kind, source.location, host)
    progress(Step.LOADING, 0.0)
    from exporters.quiet import quiet_libraries  # torch and transformers: only from here on

    with quiet_libraries(), staged(out) as folder:
        bench = Workbench(plan, source, folder, host, settings or Settings(), progress)
        manifest = MAKERS[kind](bench)
        if bench.settings.provisional:
            profile = manifest.profile.model_copy(update={"measured_on": NOT_MEASURED})
            manifest = manifest.model_copy(update={"profile": profile})
        write_manifest(folder, manifest)
    return manifest


def profile_again(folder: Path, threads: int, progress: Progress, budget_s: float = BUDGET_S) -> VariantManifest:
    """Measures a finished variant's latency profile on this host and writes it into the manifest.

    Raises VariantRejected when the variant does not pass its self-test here.
    """

    def advance(share: float) -> None:
        progress(Step.PROFILING, share)

    manifest: VariantManifest
    match open_variant(folder, threads):
        case OpenClassifier() as opened:
            manifest = profile_classifier(opened, threads, budget_s, advance)
        case OpenExtractive() as opened:
            manifest = profile_extractive(opened, threads, budget_s, advance)
        case OpenSeq2Seq() as opened:
            manifest = profile_seq2seq(opened, threads, budget_s, advance)
    replace_manifest(folder, manifest)
    return manifest


def check_plan(plan: VariantPlan, kind: Kind, location: str, host: Host) -> None:
    """Whether such a variant can be made of a checkpoint of this kind, on this host.

    Raises SourceRefused for a task that the kind does not serve, and ExportFailed for what no engine runs.
    """
    serving = tasks_of(kind)
    if plan.task not in serving:
        raise SourceRefused(
            f"{location}: is {kind.described}, which serves the task {' or '.join(map(repr, serving))}; "
            f"the task of {plan.checkpoint} is {plan.task!r}"
        )
    if plan.engine == "torch" and kind is not Kind.CLASSIFIER:
        raise ExportFailed(f"{plan.checkpoint}: the torch engine runs classifiers only, and this is {kind.described}")
    if plan.engine == "torch" and plan.precision is not Precision.FP32:
        raise ExportFailed(f"{plan.checkpoint}: the torch engine runs fp32 only")
    if plan.precision is Precision.INT8 and host.dot_product is None:
        raise ExportFailed(
            f"{plan.checkpoint}: int8 needs a processor with one of {', '.join(DOT_PRODUCT_FLAGS)}; "
            f"this is a {host.model}. Export fp32 instead"
        )
