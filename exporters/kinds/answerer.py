"""Makes answerer variants: one ONNX graph that scores each token as the first and the last of an answer.

A variant is verified by its answers: the same places in the same contexts as the source's, and logits near the
source's. How questions and contexts are joined and divided into windows is proven against the checkpoint's own
tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from deployments.engines.base import Logits
from deployments.engines.opening import ONNX_FILE, EngineSize, open_engine_named
from deployments.replica.answering.reading import QuestionReader, QuestionTooLong, ReadContext
from deployments.replica.answering.replica import OpenAnswerer
from deployments.replica.answering.spans import found_answers
from deployments.replica.tokens import TOKENIZER_FILE, Encoded
from deployments.replica.variant import Glimpse
from exporters.errors import Difference, ExportFailed, SourceRefused
from exporters.kinds.graphs import copy_weights, export_span_graph, open_exported, place_graphs, scratch_folder
from exporters.kinds.kind import Kind, error_with_ceiling, has_head, one_profile, profiled_in_one_pass, share_with_floor
from exporters.kinds.original import TYPE_IDS, Original, load_original
from exporters.kinds.shapes import batches_of, prove_shapes
from exporters.plan import Step, Workbench
from exporters.profiling import measure_grid
from exporters.sources.source import SourceFolder
from exporters.sources.texts import Text, TextSet, asked_texts, general_texts
from exporters.verification import (
    SHOWN_CHARACTERS,
    WORST,
    Comparison,
    RowTypes,
    RunRows,
    batched,
    golden_texts,
    logit_errors,
    record_self_test,
    run_rows,
    too_far_off,
)
from gateway.model.manifest import Precision
from gateway.tasks.answer import (
    AnswererManifest,
    AnswerParameters,
    FoundAnswer,
    SpanVerification,
    window_of,
)

ARCHITECTURE = "ForQuestionAnswering"

QUESTIONS = (
    "What is it about?",
    "What is it for?",
    "Who made it?",
    "Which problem does it solve?",
    "How does it work?",
    "When was it made?",
)
"""Questions that any text may be asked, in turn, of a checkpoint without verification texts of its own."""

DESCRIPTIONS, LONG_TEXTS = 90, 10
"""Verification texts of such a checkpoint: package descriptions, and documents of several windows."""

MOST_CHARACTERS = 5_000
"""Characters of a verification text: three windows of English."""


@dataclass(frozen=True)
class SpanFloors:
    """What a variant has to reach: the least share of equal answers, and the most error.

    `logit_error` is a share of the standard deviation of the source's logits.
    """

    same_answers: float
    logit_error: float


FLOORS = {
    Precision.FP32: SpanFloors(0.99, 0.001),
    Precision.INT8: SpanFloors(0.85, 0.15),
    Precision.INT8_WEIGHTS: SpanFloors(0.9, 0.1),
}
"""Set by hand: no trained checkpoint was at hand to measure one.

They are looser than those of labels, since an answer differs if one of its two borders does. Of MiniLM-L6 with a head
of random weights, for which all answers are nearly as good, int8 keeps 67 %, int8 weights 85 %, and logits are off by
0.147 and 0.038: that is refused, and what a training has told apart lies farther apart.
"""


@dataclass(frozen=True)
class Asked:
    """What the checkpoint answers: its questions, the windows of each context as rows, and the logits of each row."""

    texts: TextSet
    contexts: list[ReadContext]
    rows: list[list[int]]
    meant: list[Logits]
    types: dict[tuple[int, ...], list[int]]
    no_answer_token: bool

    def answers(self, logits: Sequence[Logits]) -> list[FoundAnswer]:
        """The best answer to each question by these logits of the rows."""
        rows, usual = iter(logits), AnswerParameters()
        return [
            found_answers(read, list(islice(rows, len(read.windows))), usual, no_answer_token=self.no_answer_token)[0]
            for read in self.contexts
        ]


def make_answerer(bench: Workbench) -> AnswererManifest:
    """Makes the variant in the bench's folder and returns its manifest, unwritten. Raises what `export` raises."""
    plan, location = bench.plan, bench.source.location
    original = load_original(bench.source.path, location, "AutoModelForQuestionAnswering", "an answerer")
    _check_sides(original, location)
    original.save_tokenizer(bench.folder)
    window, pad_id, types = original.window, original.pad_id, original.takes_types
    reader = QuestionReader.open(bench.folder / TOKENIZER_FILE, window, types=types)
    asked = _ask(original, reader, bench)
    with scratch_folder(bench) as scratch:
        bench.progress(Step.EXPORTING, 0.0)
        if plan.engine == "torch":
            copy_weights(bench)
        else:
            export_span_graph(original.model, scratch)
        _prove(bench, original, asked, scratch)
        del original  # free its memory before quantising and profiling
        if plan.engine != "torch":
            place_graphs(bench, scratch, (ONNX_FILE,))
    engine = open_engine_named(plan.engine, bench.folder, EngineSize(plan.threads, 1, window))
    said = run_rows(asked.rows, batched(engine, pad_id, asked.types), bench.advance(Step.VERIFYING))
    verification = compare_answers(asked, said, floors_of(plan.precision, bench.settings.floor))
    contexts = [one.text for one in asked.texts.texts]
    self_test = record_self_test(Glimpse(engine), lambda text: reader.ids(QUESTIONS[0], text), window, contexts)
    return AnswererManifest(
        **bench.shared(),
        token_types=types,
        special_tokens=reader.specials,
        no_answer_token=asked.no_answer_token,
        golden_question=QUESTIONS[0],
        max_tokens=window,
        pad_token_id=pad_id,
        verification=verification.accepted(bench),
        self_test=self_test,
        profile=measure_grid(engine, window, self_test, plan.threads, bench.profiling()),
    )


def questioned(source: SourceFolder) -> TextSet:
    """The checkpoint's own texts, else package descriptions and documents; each with a question as its answer."""
    found = asked_texts(source)
    if found is None:
        usual = general_texts(DESCRIPTIONS, LONG_TEXTS)
        found = TextSet(usual.name, tuple(Text(one.text[:MOST_CHARACTERS]) for one in usual.texts))
    asked = (Text(text.text, text.answer or QUESTIONS[at % len(QUESTIONS)]) for at, text in enumerate(found.texts))
    return TextSet(found.name, tuple(asked))


def _check_sides(original: Original, location: str) -> None:
    """Checks that the tokenizer pads and cuts on the right, as a question before its context needs.

    Raises SourceRefused.
    """
    for doing, side in (("pads", original.tokenizer.padding_side), ("cuts", original.tokenizer.truncation_side)):
        if side != "right":
            raise SourceRefused(f"{location}: its tokenizer {doing} on the {side}; questions are answered by one that "
                                f"{doing} on the right")  # fmt: skip


def _ask(original: Original, reader: QuestionReader, bench: Workbench) -> Asked:
    """Asks the checkpoint for the logits of every window of the verification texts.

    Raises ExportFailed if they are not read as by its tokenizer, SourceRefused if it has not two logits for a token.
    """
    location, texts = bench.source.location, questioned(bench.source)
    contexts, encoded = [], []
    for one in texts.texts:
        try:
            read = reader.read(one.answer or "", one.text)
        except QuestionTooLong as error:
            raise SourceRefused(
                f"{location}: a question of its verification texts leaves its window no room"
            ) from error
        windows = reader.encoded(read)
        if not _as_transformers(original, one, read, windows):
            raise ExportFailed(f"{location}: a question is not read as by the checkpoint's own tokenizer")
        contexts.append(read)
        encoded += windows
    rows = [one.token_ids for one in encoded]
    types = {tuple(one.token_ids): list(one.token_types) for one in encoded}
    original.check_ids(rows, location)
    meant = run_rows(rows, runner(original, types), bench.advance(Step.ASKING))
    first = original.tokenizer.cls_token_id
    return Asked(texts, contexts, rows, meant, types, first is not None and rows[0][0] == first)


def _as_transformers(original: Original, text: Text, read: ReadContext, rows: Sequence[Encoded]) -> bool:
    """True if these windows of a text are those that transformers' pipeline makes."""
    overlap = read.windows[0][1] - read.windows[1][0] if len(read.windows) > 1 else 0
    found = original.tokenizer(
        text.answer,
        text.text,
        truncation="only_second",
        max_length=window_of(original.window, None),
        stride=overlap,
        return_overflowing_tokens=True,
    )
    ids, types = found["input_ids"], found.get(TYPE_IDS)
    if types is None or not original.takes_types or not any(map(any, types)):
        types = [[] for _ in ids]
    return bool(ids == [one.token_ids for one in rows] and types == [list(one.token_types) for one in rows])


def _prove(bench: Workbench, original: Original, asked: Asked, scratch: Path) -> None:
    """Proves what was exported at several lengths and batches, padding and types included. Raises ExportFailed."""
    engine = open_exported(bench, scratch, original.window)
    types: dict[tuple[int, ...], list[int]] = {}
    text = golden_texts([one.text for one in asked.texts.texts], original.window)[-1]

    def cut(most: int) -> list[int]:
        """A question and the long text as one row of at most so many tokens."""
        found = original.tokenizer(QUESTIONS[0], text, truncation="longest_first", max_length=most)
        ids: list[int] = found["input_ids"]
        types[tuple(ids)] = found.get(TYPE_IDS, []) if original.takes_types else []
        return ids

    batches = batches_of(cut, original.window)
    run, ask = batched(engine, original.pad_id, types), runner(original, types)
    prove_shapes(original.model.config.model_type, batches, ask, run)


def runner(original: Original, types: RowTypes) -> RunRows:
    """A function that gives the source's logits (rows, tokens, 2) of a batch, padded to its longest row."""

    def run(rows: list[list[int]]) -> Logits:
        import torch

        with torch.inference_mode():
            found = original.model(**original.typed_tensors(rows, [types[tuple(row)] for row in rows]))
            logits: Logits = torch.stack([found.start_logits, found.end_logits], dim=-1).numpy()
        return logits

    return run


def floors_of(precision: Precision, floor: float | None) -> SpanFloors:
    """The floors: `floor` if given, else the precision's own."""
    usual = FLOORS[precision]
    return usual if floor is None else SpanFloors(floor, max(usual.logit_error, 1 - floor))


def compare_answers(asked: Asked, said: Sequence[Logits], floors: SpanFloors) -> Comparison[SpanVerification]:
    """Compares a variant's answers and logits with the source's."""
    wanted, given = asked.answers(asked.meant), asked.answers(said)
    same = [(one.start, one.end) == (other.start, other.end) for one, other in zip(wanted, given, strict=True)]
    error, most = logit_errors(np.concatenate(asked.meant), np.concatenate(said))
    verification = SpanVerification(
        questions=len(asked.contexts),
        windows=len(asked.rows),
        data_set=asked.texts.name,
        same_answers=float(np.mean(same)),
        same_answers_floor=floors.same_answers,
        logit_error=error,
        logit_error_ceiling=floors.logit_error,
        largest_logit_difference=most,
    )
    worst = [at for at, equal in enumerate(same) if not equal][:WORST]
    differences = tuple(Difference(at, _shown(wanted[at]), _shown(given[at])) for at in worst)
    return Comparison(verification, _broken(verification), differences)


def _broken(found: SpanVerification) -> str | None:
    if found.same_answers < found.same_answers_floor:
        return (
            f"{found.same_answers:.2%} of {found.questions} questions have the source's answer, "
            f"under the floor of {found.same_answers_floor:.2%}"
        )
    return too_far_off(found.logit_error, found.logit_error_ceiling)


def _shown(one: FoundAnswer) -> str:
    return f"{one.start}-{one.end}: {one.answer}"[:SHOWN_CHARACTERS]


def _agreement(manifest: AnswererManifest) -> Mapping[str, str]:
    found = manifest.verification
    return {
        "same answers": share_with_floor(found.same_answers, found.same_answers_floor, found.questions),
        "logit error": error_with_ceiling(found.logit_error, found.logit_error_ceiling),
    }


ANSWERER: Kind[AnswererManifest, OpenAnswerer] = Kind(
    name="answerer",
    described="an answerer",
    task="answer",
    engines=("onnx", "torch"),
    recognises=lambda path, config: has_head(config, ARCHITECTURE),
    make=make_answerer,
    profile=profiled_in_one_pass,
    agreement=_agreement,
    profiles=one_profile,
    golden=lambda manifest: manifest.self_test,
)
