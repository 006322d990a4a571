"""Answerers end to end: a real export, its proof, and variants that answer as transformers' pipeline does."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from one_pass import assert_changed_answers_are_rejected, assert_measured_again
from processors import needs_int8
from small_answerers import FAMILIES, make_answerer_checkpoint
from small_checkpoints import WINDOW
from transformers import pipeline

from deployments.engines.base import padded
from deployments.replica.answering.replica import OpenAnswerer
from deployments.replica.answering.spans import found_answers
from deployments.replica.variant import open_variant
from exporters.errors import ExportFailed, SourceRefused, VariantRefused
from exporters.export import export
from exporters.kinds import KINDS, kind_of
from exporters.kinds.answerer import QUESTIONS, questioned
from exporters.plan import Settings, VariantPlan
from exporters.sources.source import resolve_source
from gateway.model.manifest import Precision
from gateway.tasks.answer import AnswerParameters, FoundAnswer

pytestmark = [pytest.mark.export, pytest.mark.filterwarnings("ignore:__array__ implementation")]

QUESTION = "caf\u00e9 \U0001f600 good ?"
CONTEXTS = [
    "the film was very good, and i loved the acting!",
    "a caf\u00e9 \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 in cafe\u0301 z\u0308urich... it's warm",
    "\u4f60\u597d service\tfood\n\nplot unseen-word x7-99 o\u0308",
    "good",
    " ".join(["the plot was slow", "caf\u00e9", "\U0001f600 x7-99", "i loved the food,"] * 12),
    "Good GOOD good. " * 30,
]
"""Texts with marks, emoji of several code points, combining marks, words that the vocabulary lacks, and long ones."""


def without_marks_at_end(answer: str) -> str:
    """The answer without the marks of its last letter, which the pipeline's own lacks."""
    while len(answer) > 1 and unicodedata.combining(answer[-1]):
        answer = answer[:-1]
    return answer


def exported(
    root: Path, family: str = "bert", precision: Precision = Precision.FP32, engine: str = "onnx", **settings: Any
) -> Path:
    """Export a small answerer; return the folder of its variant. The checkpoint is beside it."""
    source = make_answerer_checkpoint(root / "source", family)
    plan = VariantPlan("small", "answer", "BERT", engine, precision)
    told = Settings(profile_budget_s=0.05, **settings)
    export(plan, resolve_source(str(source)), root / "variant", lambda step, share: None, told)
    return root / "variant"


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A variant in fp32, and its checkpoint beside it."""
    return exported(tmp_path_factory.mktemp("answerer"))


def opened(folder: Path) -> OpenAnswerer:
    """Open a variant with its checks."""
    found = open_variant(folder, threads=1)
    assert isinstance(found, OpenAnswerer)
    return found


def answers_of(found: OpenAnswerer, question: str, context: str, parameters: AnswerParameters) -> list[FoundAnswer]:
    """The answers to a question, its windows run one by one."""
    read = found.reader.read(question, context, parameters)
    rows = []
    for one in found.reader.encoded(read):
        batch = padded([one.token_ids], 0, [one.token_types])
        rows.append(found.engine.run(batch.token_ids, batch.attention_mask, batch.token_types)[0])
    return found_answers(read, rows, parameters, no_answer_token=found.manifest.no_answer_token)


def assert_as_the_pipeline(variant: Path, parameters: AnswerParameters, **asked: object) -> None:
    """Fail unless a variant gives each context the answers of transformers' pipeline with its checkpoint."""
    found, answer = opened(variant), pipeline("question-answering", model=str(variant.parent / "source"))
    for context in CONTEXTS:
        theirs: Any = answer(question=QUESTION, context=context, top_k=parameters.top_k, **asked)
        expected = [one for one in (theirs if isinstance(theirs, list) else [theirs]) if one["score"] > 0]
        ours = answers_of(found, QUESTION, context, parameters)
        assert [(without_marks_at_end(one.answer), one.start) for one in ours] == [
            (without_marks_at_end(one["answer"]), one["start"]) for one in expected
        ]
        assert [one.score for one in ours] == pytest.approx([float(one["score"]) for one in expected], abs=1e-4)
        assert all(context[one.start : one.end] == one.answer for one in ours)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_answers_as_the_pipeline(tmp_path: Path, family: str) -> None:
    """Families with token types, without, with two end tokens, or of bytes give the pipeline's answers and scores."""
    assert_as_the_pipeline(exported(tmp_path, family), AnswerParameters(top_k=3))


def test_torch_serves_an_answerer_without_a_graph(tmp_path: Path) -> None:
    """A Longformer's weights give the pipeline's answers, with global attention on the question."""
    with pytest.raises(ExportFailed, match="answerers are served by engine: torch"):
        exported(tmp_path / "graph", "longformer")
    assert_as_the_pipeline(exported(tmp_path, "longformer", engine="torch"), AnswerParameters(top_k=3))


@pytest.mark.parametrize(
    ("parameters", "asked"),
    [
        (AnswerParameters(), {}),
        (AnswerParameters(top_k=20), {}),
        (AnswerParameters(top_k=4, impossible=True), {"handle_impossible_answer": True}),
        (AnswerParameters(top_k=4, max_answer_tokens=2), {"max_answer_len": 2}),
        (AnswerParameters(top_k=4, max_answer_tokens=500), {"max_answer_len": 500}),
        (AnswerParameters(top_k=4, whole_words=False), {"align_to_words": False}),
        (AnswerParameters(top_k=4, window_tokens=40), {"max_seq_len": 40}),
        (AnswerParameters(top_k=4, window_tokens=48, overlap=3), {"max_seq_len": 48, "doc_stride": 3}),
        (AnswerParameters(top_k=4, overlap=0), {"doc_stride": 0}),
        (AnswerParameters(top_k=4, overlap=35, whole_words=False), {"doc_stride": 35, "align_to_words": False}),
    ],
    ids=str,
)
def test_every_parameter_does_what_it_does_in_the_pipeline(
    variant: Path, parameters: AnswerParameters, asked: dict[str, Any]
) -> None:
    """Number, length, words, windows, overlaps and impossible answers are the pipeline's, on long contexts too."""
    assert_as_the_pipeline(variant, parameters, **asked)


def test_a_variant_is_true_to_its_source(variant: Path) -> None:
    """In fp32 every answer is the source's, and logits are off by no more than rounding."""
    manifest = opened(variant).manifest
    found = manifest.verification
    assert (found.same_answers, found.questions) == (1.0, 20) and found.windows > 20
    assert found.logit_error < 1e-5
    assert (manifest.max_tokens, manifest.special_tokens) == (WINDOW, 3)
    assert manifest.token_types and manifest.no_answer_token


@pytest.mark.parametrize("precision", [pytest.param(Precision.INT8, marks=needs_int8), Precision.INT8_WEIGHTS])
def test_a_quantised_variant_serves(tmp_path: Path, precision: Precision) -> None:
    """In few bits it still has answers of its source, repeats its golden inputs, and answers."""
    found = opened(exported(tmp_path, precision=precision, floor=0.3))
    assert found.manifest.verification.same_answers > 0.3
    assert answers_of(found, QUESTION, CONTEXTS[0], AnswerParameters())[0].answer


def test_a_variant_of_other_answers_is_refused(tmp_path: Path) -> None:
    """Under a floor of its own it is refused, with the answers that differ."""
    with pytest.raises(VariantRefused, match=r"of 20 questions have the source's answer|logits are off by") as refused:
        exported(tmp_path, precision=Precision.INT8_WEIGHTS, floor=1.0)
    assert all(one.source != one.variant for one in refused.value.differences)


@pytest.mark.parametrize(("side", "doing"), [("padding_side", "pads"), ("truncation_side", "cuts")])
def test_a_tokenizer_of_the_other_side_is_refused(tmp_path: Path, side: str, doing: str) -> None:
    """A checkpoint that has the context before the question, or cuts its head, is refused with the reason."""
    source = make_answerer_checkpoint(tmp_path / "source", **{side: "left"})
    plan = VariantPlan("small", "answer", "BERT", "onnx", Precision.FP32)
    with pytest.raises(SourceRefused, match=f"its tokenizer {doing} on the left"):
        export(plan, resolve_source(str(source)), tmp_path / "variant", lambda step, share: None)


def test_a_checkpoint_is_known_by_its_architecture(variant: Path) -> None:
    """One whose config names a head for answers is an answerer, asked the questions of its own texts or usual ones."""
    source = variant.parent / "source"
    assert kind_of(source, "here") is KINDS["answerer"]
    own = questioned(resolve_source(str(source)))
    assert {one.answer for one in own.texts} == {"was it good ?"}


def test_a_checkpoint_without_texts_is_asked_usual_questions(variant: Path, tmp_path: Path) -> None:
    """Descriptions and documents stand in, each with one of a few questions."""
    bare = shutil.copytree(variant.parent / "source", tmp_path / "bare")
    (bare / "verification.jsonl").unlink()
    found = questioned(resolve_source(str(bare)))
    assert {one.answer for one in found.texts} == set(QUESTIONS) and len(found.texts) == 100
    assert "summaries-heldout" in found.name


def test_a_changed_graph_is_rejected(variant: Path, tmp_path: Path) -> None:
    """A replica refuses a variant whose golden inputs give other logits."""
    assert_changed_answers_are_rejected(variant, tmp_path)


def test_a_profile_can_be_measured_again(variant: Path, tmp_path: Path) -> None:
    """Measuring again changes the profile and nothing else."""
    assert_measured_again(variant, tmp_path)
