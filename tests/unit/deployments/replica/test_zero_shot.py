"""Laws of labels at a replica: scores by nearness or by entailment, and what is remembered of labels."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fake_embedders import DIMENSIONS, SummingEngine, replica
from fakes import manifest as classifier_manifest
from hypothesis import given
from hypothesis import strategies as st

from deployments.replica.embedding import EmbedderReplica
from deployments.replica.variant import VariantRejected, check_tasks
from deployments.replica.zero_shot import LabelVectors, Vector, ranked, scores_of
from gateway.model.messages import Answer, Failure, Work
from gateway.tasks.similarity import SimilarityParameters
from gateway.tasks.zero_shot import ZeroShotParameters

LABELS = ("cat", "dog", "sun")


def choose(
    *texts: str, labels: tuple[str, ...] = LABELS, multi_label: bool = False, template: str | None = None
) -> Work:
    """Work of `/zero-shot`: the texts, and a sentence for each label."""
    sentences = ((template or "{}").replace("{}", label) for label in labels)
    parameters = ZeroShotParameters(labels, multi_label, template)
    return Work("zero-shot", (*texts, *sentences), parameters, 60.0, False, "r")


async def answered(made: EmbedderReplica, work: Work) -> Answer:
    """The answer to one request."""
    (answer,) = await made.handle([work])
    assert isinstance(answer, Answer)
    return answer


@pytest.fixture
async def serving(tmp_path: Path) -> AsyncIterator[tuple[EmbedderReplica, SummingEngine]]:
    """An embedder's replica that has started, with its engine."""
    engine = SummingEngine()
    made = replica(tmp_path, engine)
    made.start()
    yield made, engine
    await made.stop(60)


async def test_the_nearest_label_is_first_and_scores_share_one(
    serving: tuple[EmbedderReplica, SummingEngine],
) -> None:
    """A text that is a label itself gets that label first; the scores of each text fall and make 1."""
    answer = await answered(serving[0], choose("dog", "sun"))
    assert [scored[0].label for scored in answer.outputs] == ["dog", "sun"]
    for scored in answer.outputs:
        scores = [one.score for one in scored]
        assert sorted(scores, reverse=True) == scores and math.fsum(scores) == pytest.approx(1)
        assert {one.label for one in scored} == set(LABELS)


async def test_scores_go_by_the_cosines_of_similarity(serving: tuple[EmbedderReplica, SummingEngine]) -> None:
    """Labels are scored by the cosine that `/similarity` gives for them."""
    work = Work("similarity", ("cat sea", *LABELS), SimilarityParameters(), 60.0, False, "r")
    cosines = np.asarray((await answered(serving[0], work)).outputs)
    for alone in (False, True):
        (scored,) = (await answered(serving[0], choose("cat sea", multi_label=alone))).outputs
        meant = dict(zip(LABELS, scores_of(cosines, alone=alone), strict=True))
        assert {one.label: one.score for one in scored} == pytest.approx(meant, abs=1e-4)


async def test_known_labels_are_not_run_again(serving: tuple[EmbedderReplica, SummingEngine]) -> None:
    """The second request with the same labels runs its text alone, is answered the same, and counts its text alone."""
    made, engine = serving
    first = await answered(made, choose("red sea"))
    rows = sum(shape[0] for shape in engine.shapes)
    second = await answered(made, choose("red sea"))
    assert rows == 1 + len(LABELS) and sum(shape[0] for shape in engine.shapes) == rows + 1
    assert [[one.label for one in scored] for scored in second.outputs] == [
        [one.label for one in scored] for scored in first.outputs
    ]
    assert first.input.tokens == second.input.tokens == 4 and second.timings.batch_size == 1


async def test_a_label_alone_has_a_score_of_its_own(serving: tuple[EmbedderReplica, SummingEngine]) -> None:
    """A single label is scored by itself, as transformers' pipeline does, and not as all of 1."""
    scores = []
    for text in ("dog", "sun"):
        parameters = ZeroShotParameters(("dog",))
        (scored,) = (await answered(serving[0], Work("zero-shot", (text, "dog"), parameters, 60.0, False, "r"))).outputs
        scores.append(scored[0].score)
    assert 1 > scores[0] > scores[1] > 0


async def test_what_cannot_be_answered_fails_alone(serving: tuple[EmbedderReplica, SummingEngine]) -> None:
    """A request whose outputs cannot be made fails, and the one beside it in the batch is answered."""
    broken = Work("zero-shot", (), ZeroShotParameters(()), 60.0, False, "r")
    failed, fine = await serving[0].handle([broken, choose("dog")])
    assert isinstance(failed, Failure) and isinstance(fine, Answer)


async def test_a_template_makes_a_sentence_of_its_own(serving: tuple[EmbedderReplica, SummingEngine]) -> None:
    """A label is remembered by the sentence that was made of it: another template is run again."""
    made, engine = serving
    await answered(made, choose("sea"))
    rows = sum(shape[0] for shape in engine.shapes)
    await answered(made, choose("sea", template="red {}"))
    assert sum(shape[0] for shape in engine.shapes) == rows + 1 + len(LABELS)


async def test_other_tasks_of_the_same_replica_answer_beside_it(
    serving: tuple[EmbedderReplica, SummingEngine],
) -> None:
    """One batch may hold requests of several tasks, each answered as its own."""
    similar = Work("similarity", ("cat", "dog"), SimilarityParameters(), 60.0, False, "r")
    one, other = await serving[0].handle([choose("cat"), similar])
    assert isinstance(one, Answer) and isinstance(other, Answer)
    assert len(one.outputs[0]) == len(LABELS) and isinstance(other.outputs[0], float)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=9))
def test_scores_are_shares_or_each_between_0_and_1(cosines: list[float]) -> None:
    """A nearer label never scores less; shares make 1, and a score alone depends on its own cosine only."""
    row = np.asarray(cosines)
    shares, alone = scores_of(row, alone=False), scores_of(row, alone=True)
    assert math.fsum(shares) == pytest.approx(1) and all(0 < one < 1 for one in alone)
    for scores in (shares, alone):
        order = np.argsort(-row, kind="stable")
        assert all(scores[a] >= scores[b] for a, b in pairwise(order))
    assert alone[0] == scores_of(row[:1], alone=True)[0]


def vector() -> Vector:
    """A vector of the size that embedders of tests have."""
    return np.ones(DIMENSIONS, np.float32)


def test_remembered_vectors_are_bounded_in_number_and_bytes() -> None:
    """The longest unused is forgotten first, at either bound; what was asked for again stays."""
    kept = LabelVectors(most=2)
    kept.remember({"a": vector(), "b": vector()})
    assert set(kept.known(["a"])) == {"a"}
    kept.remember({"c": vector()})
    assert set(kept.known(["a", "b", "c"])) == {"a", "c"}
    small = LabelVectors(most_bytes=2 * (vector().nbytes + 1))
    for name in "abc":
        small.remember({name: vector()})
    assert set(small.known(["a", "b", "c"])) == {"b", "c"} and len(small) == 2
    small.remember({"long" * 100: vector()})
    assert len(small) == 0


def test_equal_scores_keep_the_order_of_the_labels() -> None:
    """Labels of one score stand as they were asked."""
    assert [one.label for one in ranked(LABELS, [0.2, 0.6, 0.2])] == ["dog", "cat", "sun"]


@pytest.mark.parametrize(
    ("labels", "fits"), [(("contradiction", "entailment"), True), (("no", "yes"), False), (("entailment",), False)]
)
def test_a_classifier_without_entailment_is_rejected(labels: tuple[str, ...], fits: bool) -> None:
    """A replica of the task needs a label of entailment beside another; the message says so."""
    made = classifier_manifest("made", 0.01).model_copy(update={"labels": labels})
    if fits:
        check_tasks(made, ("classify", "zero-shot"))
        return
    check_tasks(made, ("classify",))
    with pytest.raises(VariantRejected, match="begins with 'entail'"):
        check_tasks(made, ("classify", "zero-shot"))


def test_a_variant_of_another_kind_is_rejected() -> None:
    """A task that no variant of the kind serves is named."""
    with pytest.raises(VariantRejected, match="summarize"):
        check_tasks(classifier_manifest("made", 0.01), ("summarize",))
