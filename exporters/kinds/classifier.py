"""Makes classifier variants: one ONNX graph, or the weights for torch; verified by what their head says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from deployments.engines.base import OPENVINO_FILE, OPENVINO_WEIGHTS, Engine, Logits
from deployments.engines.opening import ONNX_FILE, EngineSize, open_engine_named
from deployments.replica.classify import LabelScorer, OpenClassifier
from deployments.replica.tokens import TOKENIZER_FILE, Encoded, Side
from exporters.choosing import Race, race
from exporters.errors import ExportFailed, SourceRefused
from exporters.kinds.graphs import (
    add_openvino,
    copy_weights,
    export_graph,
    graph_folders,
    open_exported,
    scratch_folder,
)
from exporters.kinds.heads import Head, compare_labels, floors_of, read_head
from exporters.kinds.kind import Kind, one_profile, profiled_in_one_pass, share_with_floor
from exporters.kinds.original import Original, load_original
from exporters.kinds.shapes import batches_of, prove_shapes
from exporters.plan import Candidate, Step, Workbench
from exporters.profiling import measure_grid, watch_here
from exporters.sources.source import SourceFolder, read_object
from exporters.sources.texts import TextSet, labelled_texts
from exporters.verification import batched, by_length, golden_texts, record_self_test, run_all
from gateway.model.manifest import ClassifierManifest, EngineChoice, Measure, Precision, Verification

CONFIG_FILE = "config.json"

MEASURED: Mapping[Measure, str] = {"label": "agreement", "each_label": "agreement by label", "error": "explained"}
"""The title of the column with the agreement, by its measure."""


@dataclass(frozen=True)
class _Source:
    """What a classifier's variants are made of beside its graph, and the logits that they are compared with."""

    head: Head
    side: Side
    types: bool
    scorer: LabelScorer
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
    head, original = _load(bench.source)
    source = _asked(original, head, bench)
    bench.progress(Step.EXPORTING, 0.0)
    with scratch_folder(bench) as scratch:
        if plan.engine == "torch":
            copy_weights(bench)
            folders = {Precision.FP32: bench.folder}
        else:
            export_graph(original.model, scratch)
        _prove(bench, original, source, scratch)
        del original  # free its memory before quantising and profiling
        if plan.engine != "torch":
            folders = graph_folders(bench, scratch, [one.precision for one in plan.tried])
        chosen = _chosen(bench, source, folders)
        if plan.engine != "torch":
            own = (OPENVINO_FILE, OPENVINO_WEIGHTS) if chosen.candidate.engine == "openvino" else ()
            graphs = folders[chosen.candidate.precision]
            for file in (*graphs.glob(f"{ONNX_FILE}*"), *(graphs / name for name in own)):
                file.rename(bench.folder / file.name)
    self_test = record_self_test(
        chosen.engine, source.scorer.ids, source.scorer.window, [one.text for one in source.texts.texts]
    )
    return ClassifierManifest(
        **replace(bench, plan=plan.of(chosen.candidate)).shared(),
        labels=source.head.labels,
        function_to_apply=source.head.function,
        truncation_side=source.side,
        token_types=source.types,
        max_tokens=source.scorer.window,
        pad_token_id=source.scorer.pad_id,
        verification=chosen.verification,
        self_test=self_test,
        choice=chosen.choice,
        profile=measure_grid(chosen.engine, source.scorer.window, self_test, plan.threads, bench.profiling()),
    )


def _asked(original: Original, head: Head, bench: Workbench) -> _Source:
    """Saves the checkpoint's tokenizer and asks the checkpoint for its logits of the verification texts.

    Raises SourceRefused if it has not one logit for each label.
    """
    original.save_tokenizer(bench.folder)
    texts = labelled_texts(bench.source).known_to(head.labels)
    asked = [original.encode(one.text) for one in texts.texts]
    original.check_ids(asked, bench.source.location)
    meant = run_all(asked, original.runner(), bench.advance(Step.ASKING))
    if meant.shape[1:] != (len(head.labels),):
        found = " by ".join(map(str, meant.shape[1:]))
        raise SourceRefused(f"{bench.source.location}: it has {len(head.labels)} labels, and gives {found} logits")
    scorer = LabelScorer.open(
        bench.folder / TOKENIZER_FILE,
        head.labels,
        original.window,
        original.pad_id,
        function=head.function,
        side=original.truncation_side,
        types=original.takes_types,
    )
    rows = [scorer.ids(one.text) for one in texts.texts]
    return _Source(head, original.truncation_side, original.takes_types, scorer, texts, rows, meant)


def _prove(bench: Workbench, original: Original, source: _Source, scratch: Path) -> None:
    """Proves the exported graph, or the weights as torch runs them, at several shapes. Raises ExportFailed."""
    scorer, family = source.scorer, original.model.config.model_type
    try:
        opened = open_exported(bench, scratch, scorer.window)
    except ValueError as error:
        raise ExportFailed(f"{family} is not served as a classifier: {error}") from error
    text = golden_texts([one.text for one in source.texts.texts], scorer.window)[-1]
    batches = batches_of(partial(original.encode, text), scorer.window)
    prove_shapes(family, batches, original.runner(), batched(opened, scorer.pad_id))
    _prove_pairs(family, original, scorer, opened, by_length([one.text for one in source.texts.texts]), text)


def _prove_pairs(
    family: str, original: Original, scorer: LabelScorer, engine: Engine, texts: Sequence[str], long: str
) -> None:
    """Proves that pairs of texts are read and answered as by the checkpoint: short, long and unlike ones.

    Raises ExportFailed.
    """
    pairs = [(texts[-1], texts[0]), (texts[0], texts[-1]), (texts[0], long), (long, texts[0]), (long, long)]
    types: dict[tuple[int, ...], list[int]] = {}
    for pair in pairs:
        ids, kinds = original.encode_pair(*pair)
        read = scorer.encode_pair(*pair, "longest_first")
        expected = kinds if original.takes_types else [0] * len(ids)
        if not isinstance(read, Encoded) or (read.token_ids, list(read.token_types)) != (ids, expected):
            raise ExportFailed(f"{family}: a pair of texts is not read as by the checkpoint's own tokenizer")
        types[tuple(ids)] = expected

    rows = [list(ids) for ids in types]
    ask, run = original.runner(types), batched(engine, scorer.pad_id, types)
    prove_shapes(f"{family}, for pairs of texts,", [*([row] for row in rows), rows], ask, run)


def _chosen(bench: Workbench, source: _Source, folders: Mapping[Precision, Path]) -> _Chosen:
    """Races the plan's candidates if there are several, and takes the first in the race's order that holds.

    Raises VariantRefused for the last if none does.
    """
    plan, settings = bench.plan, bench.settings

    def opened(one: Candidate) -> Engine:
        if one.engine == "openvino":
            add_openvino(folders[one.precision])
        return open_engine_named(one.engine, folders[one.precision], EngineSize(plan.threads, 1, source.scorer.window))

    found: Race | None = None
    if plan.candidates:
        watch = watch_here(settings.race_budget_s, bench.advance(Step.CHOOSING))
        found = race(plan.candidates, opened, source.scorer.window, max(source.rows, key=len), watch)
    agreements: dict[Candidate, float] = {}
    order = found.ranked() if found else list(plan.tried)
    for one in order:
        engine = found.engines[one] if found else opened(one)
        said = run_all(source.rows, batched(engine, source.scorer.pad_id), bench.advance(Step.VERIFYING))
        floors = floors_of(one.precision, settings.floor, settings.drop)
        compared = compare_labels(source.meant, said, source.head, source.texts, floors)
        agreements[one] = compared.verification.label_agreement
        if compared.broken is None or one == order[-1]:
            verification = compared.accepted(replace(bench, plan=plan.of(one)))
            choice = found.choice(bench.host.kind, plan.threads, agreements) if found else None
            return _Chosen(one, engine, verification, choice)
    raise AssertionError("a plan has at least one candidate")


def source_labels(source: SourceFolder, texts: Sequence[str]) -> list[str]:
    """The source checkpoint's label of each text, by torch. Raises SourceRefused."""
    head, original = _load(source)
    logits = run_all([original.encode(text) for text in texts], original.runner(), lambda share: None)
    return [head.labels[int(best)] for best in logits.argmax(axis=1)]


def _load(source: SourceFolder) -> tuple[Head, Original]:
    """The head of a checkpoint, and the checkpoint loaded. Raises SourceRefused, of a wrong head at once."""
    head = read_head(read_object(source.path / CONFIG_FILE, source.location), source.location)
    loaded = load_original(source.path, source.location, "AutoModelForSequenceClassification", "a classifier")
    return head, loaded


def _agreement(manifest: ClassifierManifest) -> Mapping[str, str]:
    found = manifest.verification
    return {
        MEASURED[found.measure]: share_with_floor(found.label_agreement, found.label_agreement_floor, found.texts),
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
    profile=profiled_in_one_pass,
    agreement=_agreement,
    profiles=one_profile,
    golden=lambda manifest: manifest.self_test,
)
