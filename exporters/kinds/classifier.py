"""Makes classifier variants: one ONNX graph, or the weights for torch; verified by their labels."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deployments.engines.base import Logits
from deployments.engines.opening import ONNX_FILE, open_engine_named
from deployments.replica.classify import LabelScorer, OpenClassifier, applied
from deployments.replica.tokens import TOKENIZER_FILE
from exporters.errors import Difference
from exporters.kinds.graphs import export_graph, place_graphs, scratch_folder
from exporters.kinds.kind import Kind, TitledProfile, share_with_floor
from exporters.kinds.original import Original, load_original
from exporters.plan import Step, Workbench
from exporters.profiling import Advance, measure_grid
from exporters.source import SourceFolder
from exporters.texts import TextSet, labelled_texts
from exporters.verification import WORST, Comparison, RunRows, batched, record_self_test, run_all
from gateway.model.manifest import ClassifierManifest, Precision, Verification

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LabelFloors:
    """The least share of equal labels, and the most accuracy that a variant may lose."""

    label_agreement: float
    accuracy_drop: float = 0.01


FLOORS = {Precision.FP32: LabelFloors(0.999), Precision.INT8: LabelFloors(0.985)}


def make_classifier(bench: Workbench) -> ClassifierManifest:
    """Makes the variant in the bench's folder and returns its manifest, unwritten. Raises what `export` raises."""
    plan = bench.plan
    original = _load(bench.source)
    labels, window, pad_id = _labels(original.model), original.window, original.pad_id
    original.save_tokenizer(bench.folder)
    texts = labelled_texts(bench.source).known_to(labels)
    rows = [original.encode(one.text) for one in texts.texts]
    meant = run_all(rows, _runner(original), bench.advance(Step.ASKING))
    bench.progress(Step.EXPORTING, 0.0)
    if plan.engine == "torch":
        _copy_weights(bench)
    else:
        with scratch_folder(bench) as scratch:
            export_graph(original.model, scratch)
            place_graphs(bench, scratch, (ONNX_FILE,))
    del original  # free its memory before profiling
    engine = open_engine_named(plan.engine, bench.folder, plan.threads)
    task = LabelScorer.open(bench.folder / TOKENIZER_FILE, labels, window, pad_id)
    rows = [task.ids(one.text) for one in texts.texts]
    said = run_all(rows, batched(engine, pad_id), bench.advance(Step.VERIFYING))
    found = compare_labels(
        meant, said, labels, texts, floors_of(plan.precision, bench.settings.floor, bench.settings.drop)
    )
    verification = found.accepted(bench)
    self_test = record_self_test(engine, task.ids, window, [one.text for one in texts.texts])
    advance = bench.advance(Step.PROFILING)
    return ClassifierManifest(
        **bench.shared(),
        labels=labels,
        max_tokens=window,
        pad_token_id=pad_id,
        verification=verification,
        self_test=self_test,
        profile=measure_grid(engine, window, self_test, plan.threads, bench.settings.profile_budget_s, advance),
    )


def profile_classifier(opened: OpenClassifier, threads: int, budget_s: float, advance: Advance) -> ClassifierManifest:
    """The variant's manifest with a profile measured now on this host."""
    manifest = opened.manifest
    profile = measure_grid(opened.engine, manifest.max_tokens, manifest.self_test, threads, budget_s, advance)
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
    engines=("onnx", "torch"),
    recognises=lambda path, config: False,  # the default kind
    make=make_classifier,
    profile=profile_classifier,
    agreement=_agreement,
    profiles=lambda manifest: (TitledProfile(manifest.profile, "service time", "batch"),),
)
