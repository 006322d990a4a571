"""Laws of answers by sentences: which sentence is first, where it is, and what its score says."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_embedders import SummingEngine, replica
from hypothesis import given
from hypothesis import strategies as st

from deployments.replica.answering.sentences import MOST_SENTENCES, chance_of_an_answer, scores_of
from deployments.replica.embedding import EmbedderReplica
from gateway.model.messages import Answer, Failure, FailureKind, Work
from gateway.tasks.answer import AnswerParameters, FoundAnswer
from gateway.tasks.similarity import SimilarityParameters

SMILE, FAMILY = "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467"
CONTEXT = "red cat\n\ndog dog dog\n\nsun query:\n\nsea"


def ask(*asked: tuple[str, str], **parameters: Any) -> Work:
    """Work of `/answer`: questions with their contexts."""
    told = AnswerParameters(second_at=tuple(len(question) for question, _ in asked), **parameters)
    return Work("answer", tuple(question + context for question, context in asked), told, 60.0, False, "r")


@pytest.fixture
async def serving(tmp_path: Path) -> AsyncIterator[EmbedderReplica]:
    """An embedder's replica that has started."""
    made = replica(tmp_path, SummingEngine())
    made.start()
    yield made
    await made.stop(60)


async def answered(made: EmbedderReplica, work: Work) -> Answer:
    """The answer to one request."""
    (answer,) = await made.handle([work])
    assert isinstance(answer, Answer)
    return answer


@pytest.mark.parametrize(
    "before", ["", f"{SMILE} ", f"{FAMILY}! ", "e\u0301 z\u0308. ", "\u4f60\u597d\u3002", "\ud83d . "]
)
async def test_the_nearest_sentence_answers_where_it_stands(serving: EmbedderReplica, before: str) -> None:
    """The answer is the sentence itself, by its characters in the client's own context, whatever is before it."""
    context = f"{before}\n\nred cat\n\n dog dog dog \n\nsun sun\n\nsea"
    for sentence in ("dog dog dog", "sun sun", "sea"):
        ((found,),) = (await answered(serving, ask((sentence, context)))).outputs
        assert (found.answer, context[found.start : found.end]) == (sentence, sentence)


async def test_answers_are_sentences_best_first(serving: EmbedderReplica) -> None:
    """With `top_k` the sentences come by their scores, which make 1 if all are asked for; none is there twice."""
    (found,) = (await answered(serving, ask(("dog", CONTEXT), top_k=100))).outputs
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True) and math.fsum(scores) == pytest.approx(1)
    assert {one.answer for one in found} == set(CONTEXT.split("\n\n"))
    (two,) = (await answered(serving, ask(("dog", CONTEXT), top_k=2))).outputs
    assert two == found[:2]


async def test_that_there_is_no_answer_has_its_place(serving: EmbedderReplica) -> None:
    """If it may be, that there is no answer is among them, all scores make 1, and a nearer sentence leaves it less."""
    rest = []
    for question in ("dog dog dog", "<pad>"):
        (found,) = (await answered(serving, ask((question, CONTEXT), top_k=100, impossible=True))).outputs
        assert math.fsum(one.score for one in found) == pytest.approx(1)
        (none,) = [one for one in found if one.answer == ""]
        assert (none.start, none.end) == (0, 0)
        rest.append(none.score)
    assert rest[0] < rest[1]


@pytest.mark.parametrize("context", [" ", "\n\t \n"])
async def test_a_context_of_nothing_has_no_answer(serving: EmbedderReplica, context: str) -> None:
    """White space is answered by nothing, at a score of 0, or of 1 where that may be the answer."""
    for impossible, score in ((False, 0.0), (True, 1.0)):
        ((found,),) = (await answered(serving, ask(("dog", context), impossible=impossible))).outputs
        assert found == FoundAnswer("", score, 0, 0)


async def test_several_questions_are_answered_in_order(serving: EmbedderReplica) -> None:
    """Each question is answered from its own context, also beside other tasks; all that was read is counted."""
    work = ask(("dog", CONTEXT), ("sun", " "), ("sun", "sun sun . sea"), impossible=True)
    similar = Work("similarity", ("cat", "dog"), SimilarityParameters(), 60.0, False, "s")
    answer, other = await serving.handle([work, similar])
    assert isinstance(answer, Answer) and isinstance(other, Answer)
    assert len(answer.outputs) == 3 and len(other.outputs) == 1
    assert answer.input.windows == 3 and answer.input.kept == answer.input.tokens > 9


async def test_a_long_sentence_is_cut_and_told(serving: EmbedderReplica) -> None:
    """A sentence over the window is read to its window's end, answered whole, and the answer says that it was cut."""
    context = "red " * 30 + "."
    answer = await answered(serving, ask(("dog", context)))
    assert answer.input.truncated and answer.outputs[0][0].answer == context


async def test_too_many_sentences_are_refused(serving: EmbedderReplica) -> None:
    """Contexts of more sentences than a request may have are refused with the limit, and none is run."""
    half = "cat .\n\n" * (MOST_SENTENCES // 2 + 1)
    (refused,) = await serving.handle([ask(("dog", half), ("sun", half))])
    assert isinstance(refused, Failure) and refused.kind is FailureKind.TOO_LONG
    assert str(MOST_SENTENCES) in refused.detail and "cat" not in refused.detail
    assert (refused.tokens, refused.limit, refused.unit) == (MOST_SENTENCES + 2, MOST_SENTENCES, "sentences")
    assert refused.index is None, "none of the two is too long alone"
    (refused,) = await serving.handle([ask(("dog", "cat ."), ("sun", half * 2))])
    assert isinstance(refused, Failure) and refused.index == 1


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=9))
def test_scores_are_shares(cosines: list[float]) -> None:
    """A nearer sentence never scores less; shares make 1, or the chance that there is an answer."""
    near = np.asarray(cosines)
    shares, chances = scores_of(near, impossible=False), scores_of(near, impossible=True)
    assert math.fsum(shares) == pytest.approx(1)
    assert math.fsum(chances) == pytest.approx(chance_of_an_answer(near))
    for one, other in zip(np.argsort(-near)[:-1], np.argsort(-near)[1:], strict=True):
        assert shares[one] >= shares[other] and chances[one] >= chances[other]
