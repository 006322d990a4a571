"""Makes tagger variants: one ONNX graph that labels each token, verified token by token.

Labels are those of the checkpoint's config.json, as transformers reads them. How tokens become entities where a request
does not say is read from `task_specific_params`, which transformers' pipelines read too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from deployments.engines.base import Logits
from deployments.engines.opening import ONNX_FILE, EngineSize, open_engine_named
from deployments.replica.tagging.reading import TextReader
from deployments.replica.tagging.replica import OpenTagger
from deployments.replica.tokens import TOKENIZER_FILE
from deployments.replica.variant import Glimpse
from exporters.errors import Difference, ExportFailed, SourceRefused
from exporters.kinds.graphs import copy_weights, export_tagging_graph, open_exported, place_graphs, scratch_folder
from exporters.kinds.heads import read_head
from exporters.kinds.kind import Kind, error_with_ceiling, has_head, one_profile, profiled_in_one_pass, share_with_floor
from exporters.kinds.original import Original, load_original
from exporters.kinds.shapes import batches_of, prove_shapes
from exporters.plan import Step, Workbench
from exporters.profiling import measure_grid
from exporters.sources.source import SourceFolder, read_object
from exporters.sources.texts import OWN_TEXTS, PERSONAL, TAGGED_OF, TextSet, general_texts, read_texts, together
from exporters.verification import (
    SHOWN_CHARACTERS,
    WORST,
    Comparison,
    batched,
    golden_texts,
    logit_errors,
    record_self_test,
    run_rows,
    too_far_off,
)
from gateway.model.manifest import Precision
from gateway.tasks.tokens import OUTSIDE, Aggregation, TaggerManifest, TaggingVerification

ARCHITECTURE = "ForTokenClassification"
PIPELINE = "token-classification"

DESCRIPTIONS, LONG_TEXTS = 60, 10
"""Verification texts of a checkpoint without its own, beside those with personal data: package descriptions and
documents, most of which have nothing to find."""


@dataclass(frozen=True)
class TaggingFloors:
    """What a variant has to reach: the least agreement of all labels and of those that are no `O`, and the most error.

    `logit_error` is a share of the standard deviation of the source's logits.
    """

    label_agreement: float
    tagged_agreement: float
    logit_error: float


FLOORS = {
    Precision.FP32: TaggingFloors(0.9999, 0.999, 0.001),
    Precision.INT8: TaggingFloors(0.985, 0.95, 0.1),
    Precision.INT8_WEIGHTS: TaggingFloors(0.99, 0.97, 0.05),
}
"""Of the tokens that Rampart finds something in, 95.8 % have its label in int8, 99.3 % with int8 weights; of all 99.5
and 99.9 %. Its logits are off by 0.036 and 0.011 of their standard deviation. Set by hand under these."""


@dataclass(frozen=True)
class _Asked:
    """What the checkpoint answers: its labels, the rows of its texts, and the logits (tokens, labels) of each."""

    labels: tuple[str, ...]
    texts: TextSet
    rows: list[list[int]]
    meant: list[Logits]


def make_tagger(bench: Workbench) -> TaggerManifest:
    """Makes the variant in the bench's folder and returns its manifest, unwritten. Raises what `export` raises."""
    plan, location = bench.plan, bench.source.location
    config = read_object(bench.source.path / "config.json", location)
    aggregation, labels = read_aggregation(config, location), read_head(config, location).labels
    original = load_original(bench.source.path, location, "AutoModelForTokenClassification", "a tagger")
    window, pad_id, unknown_id = original.window, original.pad_id, original.tokenizer.unk_token_id
    original.save_tokenizer(bench.folder)
    reader = TextReader.open(bench.folder / TOKENIZER_FILE, window)
    asked = _ask(original, labels, reader, bench)
    with scratch_folder(bench) as scratch:
        bench.progress(Step.EXPORTING, 0.0)
        if plan.engine == "torch":
            copy_weights(bench)
        else:
            export_tagging_graph(original.model, scratch)
        _prove(bench, original, asked, scratch)
        del original  # free its memory before quantising and profiling
        if plan.engine != "torch":
            place_graphs(bench, scratch, (ONNX_FILE,))
    engine = open_engine_named(plan.engine, bench.folder, EngineSize(plan.threads, 1, window))
    said = run_rows(asked.rows, batched(engine, pad_id), bench.advance(Step.VERIFYING))
    verification = compare_tags(asked.meant, said, labels, asked.texts, floors_of(plan.precision, bench.settings.floor))
    texts = [one.text for one in asked.texts.texts]
    self_test = record_self_test(Glimpse(engine), reader.ids, window, texts)
    return TaggerManifest(
        **bench.shared(),
        labels=labels,
        aggregation_strategy=aggregation,
        special_tokens=reader.specials,
        unknown_token_id=unknown_id,
        max_tokens=window,
        pad_token_id=pad_id,
        verification=verification.accepted(bench),
        self_test=self_test,
        profile=measure_grid(engine, window, self_test, plan.threads, bench.profiling()),
    )


def read_aggregation(config: Mapping[str, Any], location: str) -> Aggregation:
    """How a checkpoint's tokens become entities: by its own word, else `simple`. Raises SourceRefused."""
    tasks = config.get("task_specific_params")
    own = tasks.get(PIPELINE) if isinstance(tasks, Mapping) else None
    named = str((own.get("aggregation_strategy") if isinstance(own, Mapping) else None) or "simple").lower()
    found = next((one for one in get_args(Aggregation) if one == named), None)
    if found is None:
        raise SourceRefused(f"{location}: its config.json asks for the aggregation_strategy {named!r}, which is none")
    strategy: Aggregation = found
    return strategy


def tagged_texts(source: SourceFolder) -> TextSet:
    """The checkpoint's own texts; else those with personal data, package descriptions, and documents to be cut.

    A starter that finds something else has texts with that in place of personal data.
    """
    if (source.path / OWN_TEXTS).exists():
        return read_texts(source.path / OWN_TEXTS)
    tagged = read_texts(TAGGED_OF.get(source.location, PERSONAL))
    return together(tagged, general_texts(DESCRIPTIONS, LONG_TEXTS))


def _ask(original: Original, labels: tuple[str, ...], reader: TextReader, bench: Workbench) -> _Asked:
    """Asks the checkpoint for the logits of the verification texts.

    Raises SourceRefused if it has not one logit for each label, ExportFailed if texts are not read as by its tokenizer.
    """
    location, texts = bench.source.location, tagged_texts(bench.source)
    rows = [original.encode(one.text) for one in texts.texts]
    if any(row != reader.ids(one.text) for row, one in zip(rows, texts.texts, strict=True)):
        raise ExportFailed(f"{location}: a text is not read as by the checkpoint's own tokenizer")
    original.check_ids(rows, location)
    meant = run_rows(rows, original.runner(), bench.advance(Step.ASKING))
    if meant[0].shape[1:] != (len(labels),):
        found = " by ".join(map(str, meant[0].shape[1:]))
        raise SourceRefused(f"{location}: it has {len(labels)} labels, and gives {found} logits for a token")
    return _Asked(labels, texts, rows, meant)


def _prove(bench: Workbench, original: Original, asked: _Asked, scratch: Path) -> None:
    """Proves what was exported at several lengths and batches, padding included. Raises ExportFailed."""
    family = original.model.config.model_type
    engine = open_exported(bench, scratch, original.window)
    text = golden_texts([one.text for one in asked.texts.texts], original.window)[-1]
    batches = batches_of(partial(original.encode, text), original.window)
    prove_shapes(family, batches, original.runner(), batched(engine, original.pad_id))


def floors_of(precision: Precision, floor: float | None) -> TaggingFloors:
    """The floors: `floor` if given, else the precision's own."""
    usual = FLOORS[precision]
    return usual if floor is None else TaggingFloors(floor, floor, max(usual.logit_error, 1 - floor))


def compare_tags(
    source: Sequence[Logits], variant: Sequence[Logits], labels: Sequence[str], texts: TextSet, floors: TaggingFloors
) -> Comparison[TaggingVerification]:
    """Compares a variant's labels and logits with the source's, token by token."""
    meant, said = np.concatenate(source), np.concatenate(variant)
    wanted, given = meant.argmax(axis=1), said.argmax(axis=1)
    same = wanted == given
    tagged = np.asarray([label != OUTSIDE for label in labels])[wanted]
    error, most = logit_errors(meant, said)
    verification = TaggingVerification(
        texts=len(source),
        tokens=len(meant),
        data_set=texts.name,
        label_agreement=float(same.mean()),
        label_agreement_floor=floors.label_agreement,
        tagged_tokens=int(tagged.sum()),
        tagged_agreement=float(same[tagged].mean()) if tagged.any() else None,
        tagged_agreement_floor=floors.tagged_agreement,
        logit_error=error,
        logit_error_ceiling=floors.logit_error,
        largest_logit_difference=most,
    )
    return Comparison(verification, _broken(verification), _worst(source, variant, labels))


def _broken(found: TaggingVerification) -> str | None:
    if found.label_agreement < found.label_agreement_floor:
        return (
            f"{found.label_agreement:.2%} of the labels of {found.tokens} tokens agree with the source, "
            f"under the floor of {found.label_agreement_floor:.2%}"
        )
    if found.tagged_agreement is not None and found.tagged_agreement < found.tagged_agreement_floor:
        return (
            f"{found.tagged_agreement:.2%} of the {found.tagged_tokens} tokens that the source finds something in "
            f"have its label, under the floor of {found.tagged_agreement_floor:.2%}"
        )
    return too_far_off(found.logit_error, found.logit_error_ceiling)


def _worst(source: Sequence[Logits], variant: Sequence[Logits], labels: Sequence[str]) -> tuple[Difference, ...]:
    """The texts with the most tokens of another label, those labels first."""
    pairs = [(one.argmax(axis=1), other.argmax(axis=1)) for one, other in zip(source, variant, strict=True)]
    flips = [np.flatnonzero(one != other).tolist() for one, other in pairs]
    order = sorted((at for at in range(len(flips)) if flips[at]), key=lambda at: -len(flips[at]))[:WORST]

    def shown(at: int, which: int) -> str:
        return " ".join(f"{token}:{labels[int(pairs[at][which][token])]}" for token in flips[at])[:SHOWN_CHARACTERS]

    return tuple(Difference(at, shown(at, 0), shown(at, 1)) for at in order)


def _agreement(manifest: TaggerManifest) -> Mapping[str, str]:
    found = manifest.verification
    tagged = found.tagged_agreement
    return {
        "agreement": share_with_floor(found.label_agreement, found.label_agreement_floor, found.tokens),
        "of what is found": (
            "-" if tagged is None else share_with_floor(tagged, found.tagged_agreement_floor, found.tagged_tokens)
        ),
        "logit error": error_with_ceiling(found.logit_error, found.logit_error_ceiling),
    }


TAGGER: Kind[TaggerManifest, OpenTagger] = Kind(
    name="tagger",
    described="a tagger",
    task="tokens",
    engines=("onnx", "torch"),
    recognises=lambda path, config: has_head(config, ARCHITECTURE),
    make=make_tagger,
    profile=profiled_in_one_pass,
    agreement=_agreement,
    profiles=one_profile,
    golden=lambda manifest: manifest.self_test,
)
