"""Makes filler variants: one ONNX graph that finds the tokens for masks, verified by the likeliest of them.

Each verification text has a mask in place of its middle token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deployments.engines.base import Logits
from deployments.engines.opening import ONNX_FILE, EngineSize, open_engine_named
from deployments.replica.filling import MaskReader, OpenFiller
from deployments.replica.tokens import TOKENIZER_FILE
from deployments.replica.variant import Glimpse
from exporters.errors import Difference, ExportFailed, SourceRefused
from exporters.kinds.graphs import export_mask_graph, place_graphs, scratch_folder
from exporters.kinds.kind import Kind, error_with_ceiling, has_head, one_profile, profiled_in_one_pass, share_with_floor
from exporters.kinds.original import Original, load_original
from exporters.kinds.shapes import batches_of, prove_shapes
from exporters.plan import Step, Workbench
from exporters.profiling import measure_grid
from exporters.sources.source import SourceFolder
from exporters.sources.texts import OWN_TEXTS, TextSet, general_texts, read_texts
from exporters.verification import (
    WORST,
    Comparison,
    RunRows,
    batched,
    golden_texts,
    logit_errors,
    record_self_test,
    run_rows,
    too_far_off,
)
from gateway.model.manifest import Precision
from gateway.tasks.fill import MASKS, FillerManifest, FillVerification

ARCHITECTURE = "ForMaskedLM"

DESCRIPTIONS, LONG_TEXTS = 145, 5
"""Verification texts of a checkpoint without its own: package descriptions, and documents to be cut."""


@dataclass(frozen=True)
class FillFloors:
    """What a variant has to reach: the least share of equal words, and the most error.

    `logit_error` is a share of the standard deviation of the source's logits.
    """

    same_word: float
    logit_error: float


FLOORS = {
    Precision.FP32: FillFloors(0.99, 0.001),
    Precision.INT8: FillFloors(0.8, 0.2),
    Precision.INT8_WEIGHTS: FillFloors(0.9, 0.1),
}
"""Set by hand: no trained checkpoint was at hand to measure one.

They are looser than those of labels, since of a whole vocabulary several words are often nearly as likely. Of
MiniLM-L6 with a head of random weights int8 keeps 50 % of the likeliest words, int8 weights 88.5 %, and logits are
off by 0.26 and 0.066: that is refused, and what a training has told apart lies farther apart.
"""


@dataclass(frozen=True)
class _Asked:
    """What the checkpoint answers: its texts as rows with one mask each, and the logits (vocabulary,) of each mask."""

    texts: TextSet
    rows: list[list[int]]
    meant: list[Logits]


def make_filler(bench: Workbench) -> FillerManifest:
    """Makes the variant in the bench's folder and returns its manifest, unwritten. Raises what `export` raises."""
    plan, location = bench.plan, bench.source.location
    original = load_original(bench.source.path, location, "AutoModelForMaskedLM", "a filler")
    tokenizer = original.tokenizer
    if tokenizer.mask_token is None:
        raise SourceRefused(f"{location}: its tokenizer has no mask token")
    original.save_tokenizer(bench.folder)
    mask, window, pad_id = str(tokenizer.mask_token), original.window, original.pad_id
    cleans = bool(tokenizer.clean_up_tokenization_spaces)
    reader = MaskReader(bench.folder / TOKENIZER_FILE, window, mask, pad_id, cleans=cleans)
    asked = _ask(original, reader, bench)
    with scratch_folder(bench) as scratch:
        bench.progress(Step.EXPORTING, 0.0)
        export_mask_graph(original.model, scratch, reader.mask_id)
        fp32 = batched(open_engine_named("onnx", scratch, EngineSize(plan.threads, 1, window)), pad_id)
        _prove(original, asked, reader.mask_id, fp32)
        del original, fp32  # free their memory before quantising and profiling
        place_graphs(bench, scratch, (ONNX_FILE,))
    engine = open_engine_named(plan.engine, bench.folder, EngineSize(plan.threads, 1, window))
    said = [one[0] for one in run_rows(asked.rows, batched(engine, pad_id), bench.advance(Step.VERIFYING))]
    verification = compare_words(asked.meant, said, asked.texts.name, floors_of(plan.precision, bench.settings.floor))
    texts = [one.text for one in asked.texts.texts]
    self_test = record_self_test(Glimpse(engine, axis=2), reader.masked, window, texts)
    return FillerManifest(
        **bench.shared(),
        mask_token=mask,
        cleans_spaces=cleans,
        max_tokens=window,
        pad_token_id=pad_id,
        verification=verification.accepted(bench),
        self_test=self_test,
        profile=measure_grid(engine, window, self_test, plan.threads, bench.profiling()),
    )


def masked_texts(source: SourceFolder) -> TextSet:
    """The checkpoint's own texts; else package descriptions, and documents to be cut."""
    if (source.path / OWN_TEXTS).exists():
        return read_texts(source.path / OWN_TEXTS)
    return general_texts(DESCRIPTIONS, LONG_TEXTS)


def _ask(original: Original, reader: MaskReader, bench: Workbench) -> _Asked:
    """Asks the checkpoint for the logits of the mask of each verification text.

    Raises ExportFailed if texts are not read as by its tokenizer.
    """
    location, texts = bench.source.location, masked_texts(bench.source)
    rows = [reader.masked(one.text) for one in texts.texts]
    whole = [original.encode(one.text) for one in texts.texts]
    alike = all(_differ(row, own) <= 1 for row, own in zip(rows, whole, strict=True))
    written = f"{texts.texts[0].text[:100]} {MASKS[0]} {MASKS[-1]}."
    named = written.replace(MASKS[0], original.tokenizer.mask_token).replace(MASKS[-1], original.tokenizer.mask_token)
    if not alike or reader.encode(written) != reader.encode(named):
        raise ExportFailed(f"{location}: a text is not read as by the checkpoint's own tokenizer")
    original.check_ids(rows, location)
    found = run_rows(rows, runner(original, reader.mask_id), bench.advance(Step.ASKING), at_once=1)
    return _Asked(texts, rows, [logits[0] for logits in found])


def _differ(row: Sequence[int], other: Sequence[int]) -> int:
    """The number of places where two rows differ, and how much longer one is."""
    return sum(one != two for one, two in zip(row, other, strict=False)) + abs(len(row) - len(other))


def _prove(original: Original, asked: _Asked, mask_id: int, run: RunRows) -> None:
    """Proves the exported graph at several lengths, batches and numbers of masks. Raises ExportFailed."""
    text = golden_texts([one.text for one in asked.texts.texts], original.window)[-1]

    def cut(most: int) -> list[int]:
        """The long text's token ids, cut, with as many masks as half of its length has bits set."""
        row = original.encode(text, most)
        for nth in range((len(row) // 2).bit_count()):
            row[1 + nth] = mask_id
        return row

    ask = runner(original, mask_id)
    prove_shapes(original.model.config.model_type, batches_of(cut, original.window), ask, run)


def runner(original: Original, mask_id: int) -> RunRows:
    """A function that gives the source's logits (rows, masks, vocabulary) of a batch's masks, as the graph does.

    Those of a row with fewer masks than another one are 0 where it has none.
    """

    def run(rows: list[list[int]]) -> Logits:
        import torch

        with torch.inference_mode():
            logits = original.model(**original.typed_tensors(rows, None)).logits
        places = [[at for at, one in enumerate(row) if one == mask_id] for row in rows]
        found: Logits = np.zeros((len(rows), max(map(len, places)), logits.shape[-1]), dtype=np.float32)
        for nth, at in enumerate(places):
            found[nth, : len(at)] = logits[nth, at].numpy()
        return found

    return run


def floors_of(precision: Precision, floor: float | None) -> FillFloors:
    """The floors: `floor` if given, else the precision's own."""
    usual = FLOORS[precision]
    return usual if floor is None else FillFloors(floor, max(usual.logit_error, 1 - floor))


def compare_words(
    source: Sequence[Logits], variant: Sequence[Logits], data_set: str, floors: FillFloors
) -> Comparison[FillVerification]:
    """Compares a variant's likeliest words and logits with the source's."""
    meant, said = np.stack(source), np.stack(variant)
    wanted, given = meant.argmax(axis=1), said.argmax(axis=1)
    error, most = logit_errors(meant, said)
    verification = FillVerification(
        texts=len(source),
        data_set=data_set,
        same_word=float((wanted == given).mean()),
        same_word_floor=floors.same_word,
        logit_error=error,
        logit_error_ceiling=floors.logit_error,
        largest_logit_difference=most,
    )
    worst = np.flatnonzero(wanted != given).tolist()[:WORST]
    differences = tuple(Difference(at, f"token {wanted[at]}", f"token {given[at]}") for at in worst)
    return Comparison(verification, _broken(verification), differences)


def _broken(found: FillVerification) -> str | None:
    if found.same_word < found.same_word_floor:
        return (
            f"{found.same_word:.2%} of {found.texts} texts have the source's likeliest word, "
            f"under the floor of {found.same_word_floor:.2%}"
        )
    return too_far_off(found.logit_error, found.logit_error_ceiling)


def _agreement(manifest: FillerManifest) -> Mapping[str, str]:
    found = manifest.verification
    return {
        "same word": share_with_floor(found.same_word, found.same_word_floor, found.texts),
        "logit error": error_with_ceiling(found.logit_error, found.logit_error_ceiling),
    }


FILLER: Kind[FillerManifest, OpenFiller] = Kind(
    name="filler",
    described="a filler",
    task="fill",
    engines=("onnx",),
    recognises=lambda path, config: has_head(config, ARCHITECTURE),
    make=make_filler,
    profile=profiled_in_one_pass,
    agreement=_agreement,
    profiles=one_profile,
    golden=lambda manifest: manifest.self_test,
)
