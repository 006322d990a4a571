"""Makes classifier variants: one ONNX graph, or the weights for torch; verified by their labels."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deployments.engines.base import OPENVINO_FILE, OPENVINO_WEIGHTS, Engine, Logits
from deployments.engines.opening import ONNX_FILE, EngineSize, open_engine_named
from deployments.replica.classify import LabelScorer, OpenClassifier, applied
from deployments.replica.tokens import TOKENIZER_FILE
from exporters.choosing import Race, race
from exporters.errors import Difference
from exporters.kinds.graphs import add_openvino, export_graph, graph_folders, scratch_folder
from exporters.kinds.kind import Kind, TitledProfile, share_with_floor
from exporters.kinds.original import Original, load_original
from exporters.plan import Candidate, Step, Workbench
from exporters.profiling import Advance, measure_grid, watch_here
from exporters.sources.source import SourceFolder
from exporters.sources.texts import TextSet, labelled_texts
from exporters.verification import WORST, Comparison, RunRows, batched, record_self_test, run_all
from gateway.model.manifest import ClassifierManifest, EngineChoice, Precision, Verification

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LabelFloors:
    """The least share of equal labels, and the most accuracy that a variant may lose."""

    label_agreement: float
    accuracy_drop: float = 0.01


FLOORS = {
    Precision.FP32: LabelFloors(0.999),
    Precision.BF16: LabelFloors(0.995),  # the starters agree in 99.8 %
    Precision.INT8: LabelFloors(0.985),
    Precision.INT8_WEIGHTS: LabelFloors(0.99),
}


@dataclass(frozen=True)
class _Source:
    """What a classifier's variants are made of beside its graph, and the logits that they are compared with."""

    labels: tuple[str, ...]
    window: int
    pad_id: int
    texts: TextSet
    rows: list[list[int]]
    meant: Logits


@dataclass(frozen=True)
class _Chosen:
    """The candidate that is made: its open engine, its verification, and the race if there was one."""

    candidate: Candidate
    engine: Engine
    verification: Verification
    choice: EngineChoice | None


def make_classifier(bench: Workbench) -> ClassifierManifest:
    """Makes the variant in the bench's folder and returns its manifest, unwritten. Raises what `export` raises.

    The checkpoint is loaded, asked and exported once, however many engines could run it.
    """
    plan = bench.plan
    original = _load(bench.source)
    source = _asked(original, bench)
    bench.progress(Step.EXPORTING, 0.0)
    with scratch_folder(bench) as scratch:
        if plan.engine == "torch":
            _copy_weights(bench)
            folders = {Precision.FP32: bench.folder}
        else:
            export_graph(original.model, scratch)
            del original  # free its memory before quantising and profiling
            folders = graph_folders(bench, scratch, [one.precision for one in plan.tried])
        chosen = _chosen(bench, source, folders)
        if plan.engine != "torch":
            own = (OPENVINO_FILE, OPENVINO_WEIGHTS) if chosen.candidate.engine == "openvino" else ()
            graphs = folders[chosen.candidate.precision]
            for file in (*graphs.glob(f"{ONNX_FILE}*"), *(graphs / name for name in own)):
                file.rename(bench.folder / file.name)
    task = LabelScorer.open(bench.folder / TOKENIZER_FILE, source.labels, source.window, source.pad_id)
    self_test = record_self_test(chosen.engine, task.ids, source.window, [one.text for one in source.texts.texts])
    return ClassifierManifest(
        **replace(bench, plan=plan.of(chosen.candidate)).shared(),
        labels=source.labels,
        max_tokens=source.window,
        pad_token_id=source.pad_id,
        verification=chosen.verification,
        self_test=self_test,
        choice=chosen.choice,
        profile=measure_grid(chosen.engine, source.window, self_test, plan.threads, bench.profiling()),
    )


def _asked(original: Original, bench: Workbench) -> _Source:
    """Saves the checkpoint's tokenizer and asks the checkpoint for its logits of the verification texts."""
    labels = _labels(original.model)
    original.save_tokenizer(bench.folder)
    texts = labelled_texts(bench.source).known_to(labels)
    meant = run_all([original.encode(one.text) for one in texts.texts], _runner(original), bench.advance(Step.ASKING))
    task = LabelScorer.open(bench.folder / TOKENIZER_FILE, labels, original.window, original.pad_id)
    rows = [task.ids(one.text) for one in texts.texts]
    return _Source(labels, original.window, original.pad_id, texts, rows, meant)


def _chosen(bench: Workbench, source: _Source, folders: Mapping[Precision, Path]) -> _Chosen:
    """Races the plan's candidates if there are several, and takes the first in the race's order that holds.

    Raises VariantRefused for the last if none does.
    """
    plan, settings = bench.plan, bench.settings

    def opened(one: Candidate) -> Engine:
        if one.engine == "openvino":
            add_openvino(folders[one.precision])
        return open_engine_named(one.engine, folders[one.precision], EngineSize(plan.threads, 1, source.window))

    found: Race | None = None
    if plan.candidates:
        watch = watch_here(settings.race_budget_s, bench.advance(Step.CHOOSING))
        found = race(plan.candidates, opened, source.window, max(source.rows, key=len), watch)
    agreements: dict[Candidate, float] = {}
    order = found.ranked() if found else list(plan.tried)
    for one in order:
        engine = found.engines[one] if found else opened(one)
        said = run_all(source.rows, batched(engine, source.pad_id), bench.advance(Step.VERIFYING))
        floors = floors_of(one.precision, settings.floor, settings.drop)
        compared = compare_labels(source.meant, said, source.labels, source.texts, floors)
        agreements[one] = compared.verification.label_agreement
        if compared.broken is None or one == order[-1]:
            verification = compared.accepted(replace(bench, plan=plan.of(one)))
            choice = found.choice(bench.host.kind, plan.threads, agreements) if found else None
            return _Chosen(one, engine, verification, choice)
    raise AssertionError("a plan has at least one candidate")


def profile_classifier(opened: OpenClassifier, threads: int, budget_s: float, advance: Advance) -> ClassifierManifest:
    """The variant's manifest with a profile measured now on this host."""
    manifest = opened.manifest
    watch = watch_here(budget_s, advance)
    profile = measure_grid(opened.engine, manifest.max_tokens, manifest.self_test, threads, watch)
    return manifest.model_copy(update={"profile": profile})


def source_labels(source: SourceFolder, texts: Sequence[str]) -> list[str]:
    """The source checkpoint's label of each text, by torch. Raises SourceRefused."""
    original = _load(source)
    logits = run_all([original.encode(text) for text in texts], _runner(original), lambda share: None)
    labels = _labels(original.model)
    return [labels[int(best)] for best in logits.argmax(axis=1)]


def floors_of(precision: Precision, floor: float | None, drop: float) -> LabelFloors:
    """The floors: `floor` if given, else the precision's own."""
    return LabelFloors(FLOORS[precision].label_agreement if floor is None else floor, drop)


def compare_labels(
    source: Logits, variant: Logits, labels: tuple[str, ...], texts: TextSet, floors: LabelFloors
) -> Comparison[Verification]:
    """Compares the variant's logits with the source's, and both with the texts' labels if they have any."""
    said, meant = variant.argmax(axis=1), source.argmax(axis=1)
    agreement = float((said == meant).mean())
    true = [labels.index(one.answer) if one.answer is not None else -1 for one in texts.texts]
    labelled = np.asarray(true) >= 0
    accuracy = float((said == true)[labelled].mean()) if labelled.any() else None
    source_accuracy = float((meant == true)[labelled].mean()) if labelled.any() else None
    apart = np.abs(variant - source)
    verification = Verification(
        texts=len(texts.texts),
        data_set=texts.name,
        label_agreement=agreement,
        label_agreement_floor=floors.label_agreement,
        largest_logit_difference=float(np.nan_to_num(apart, nan=np.inf, posinf=np.inf).max()),
        accuracy=accuracy,
        source_accuracy=source_accuracy,
        accuracy_drop_ceiling=floors.accuracy_drop,
    )
    return Comparison(verification, _broken(verification), _worst(source, variant, labels))


def _load(source: SourceFolder) -> Original:
    return load_original(source.path, source.location, "AutoModelForSequenceClassification", "a classifier")


def _labels(model: PreTrainedModel) -> tuple[str, ...]:
    names: dict[int, str] = model.config.id2label or {}
    return tuple(str(names[at]) for at in range(model.config.num_labels))


def _runner(original: Original) -> RunRows:
    def run(rows: list[list[int]]) -> Logits:
        """Logits (rows, labels) of a batch padded to its longest row."""
        import torch

        with torch.inference_mode():
            logits: Logits = original.model(**original.tensors(rows)).logits.numpy()
        return logits

    return run


def _copy_weights(bench: Workbench) -> None:
    """Copies the checkpoint's files, which the torch engine runs as they are."""
    source = bench.source.path
    for file in (source / "config.json", *source.glob("*.safetensors*")):
        shutil.copyfile(file, bench.folder / file.name)


def _broken(found: Verification) -> str | None:
    if not np.isfinite(found.largest_logit_difference):
        return "some of its logits are not numbers"
    if found.label_agreement < found.label_agreement_floor:
        return (
            f"{found.label_agreement:.2%} of {found.texts} labels agree with the source, "
            f"under the floor of {found.label_agreement_floor:.2%}"
        )
    if found.accuracy is not None and found.source_accuracy is not None:
        drop = found.source_accuracy - found.accuracy
        if drop > found.accuracy_drop_ceiling:
            return (
                f"its accuracy is {found.accuracy:.2%} and the source's {found.source_accuracy:.2%}, "
                f"a drop over the ceiling of {found.accuracy_drop_ceiling:.2%}"
            )
    return None


def _worst(source: Logits, variant: Logits, labels: tuple[str, ...]) -> tuple[Difference, ...]:
    """The worst texts: those with another label than the source's first, then by difference of scores."""
    meant = np.asarray([applied("softmax", row) for row in source])
    said = np.asarray([applied("softmax", row) for row in variant])
    flipped = meant.argmax(axis=1) != said.argmax(axis=1)
    apart = np.abs(meant - said).max(axis=1)
    order = sorted(range(len(meant)), key=lambda i: (not flipped[i], -apart[i]))[:WORST]
    return tuple(Difference(i, _answer(meant[i], labels), _answer(said[i], labels)) for i in order if apart[i] > 0)


def _answer(scores: Logits, labels: tuple[str, ...]) -> str:
    """The best label with its score."""
    return f"{labels[int(scores.argmax())]} {scores.max():.3f}"


def _agreement(manifest: ClassifierManifest) -> Mapping[str, str]:
    found = manifest.verification
    return {
        "agreement": share_with_floor(found.label_agreement, found.label_agreement_floor, found.texts),
        "accuracy": _share(found.accuracy),
        "source accuracy": _share(found.source_accuracy),
        "largest logit difference": f"{found.largest_logit_difference:.2g}",
    }


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


CLASSIFIER: Kind[ClassifierManifest, OpenClassifier] = Kind(
    name="classifier",
    described="a classifier",
    task="classify",
    engines=("onnx", "openvino", "torch"),
    recognises=lambda path, config: False,  # the default kind
    make=make_classifier,
    profile=profile_classifier,
    agreement=_agreement,
    profiles=lambda manifest: (TitledProfile(manifest.profile, "service time", "batch"),),
)
