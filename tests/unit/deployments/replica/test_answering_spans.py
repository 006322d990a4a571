"""Laws of an answerer's replica: what it answers, where, in contexts of any length, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_answerers import SPECIALS, WINDOW, WORDS, KnowingEngine, replica

from deployments.replica.tokens import INLINE_CHARACTERS
from gateway.model.messages import Answer, Failure, FailureKind, Work
from gateway.tasks.answer import AnswerParameters, FoundAnswer
from gateway.tasks.windows import MOST_WINDOWS

SMILE, FAMILY = "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467"
WHO = "who ?"


def ask(*asked: tuple[str, str], **parameters: Any) -> Work:
    """Work of `/answer`: questions with their contexts."""
    told = AnswerParameters(second_at=tuple(len(question) for question, _ in asked), **parameters)
    return Work("answer", tuple(question + context for question, context in asked), told, 60.0, False, "r")


async def handled(folder: Path, work: Work, engine: KnowingEngine | None = None) -> Answer | Failure:
    """The result of one request alone."""
    made = replica(folder, engine or KnowingEngine())
    made.start()
    try:
        (answer,) = await made.handle([work])
    finally:
        await made.stop(60)
    return answer


async def answered(folder: Path, work: Work, engine: KnowingEngine | None = None) -> Answer:
    """The answer to one request alone."""
    answer = await handled(folder, work, engine)
    assert isinstance(answer, Answer)
    return answer


@pytest.mark.parametrize("before", ["", SMILE, FAMILY, "e\u0301 z\u0308", "\u4f60\u597d", "[SEP] [PAD]", "\ud83d "])
async def test_places_are_in_the_client_s_own_context(tmp_path: Path, before: str) -> None:
    """Emoji, combining marks, names of special tokens and half a surrogate pair before an answer do not move it."""
    context = f"{before} Ann and LEE ."
    ((found,),) = (await answered(tmp_path, ask((WHO, context)))).outputs
    assert (found.answer, context[found.start : found.end]) == ("Ann and LEE", "Ann and LEE") and found.score > 0.9


async def test_a_question_and_its_context_are_read_as_a_pair(tmp_path: Path) -> None:
    """The engine is given the question between special tokens, then the context, each told by its types."""
    engine = KnowingEngine()
    answer = await answered(tmp_path, ask((WHO, "ann lee")), engine)
    ((ids, types),) = engine.rows
    assert [WORDS[one] for one in ids] == ["[CLS]", "who", "?", "[SEP]", "ann", "lee", "[SEP]"]
    assert types == [0, 0, 0, 0, 1, 1, 1]
    assert (answer.input.tokens, answer.input.kept, answer.input.windows) == (7, 7, 1)


async def test_answers_are_widened_to_words_unless_parts_are_asked_for(tmp_path: Path) -> None:
    """Pieces of a word are answered with the whole of it, and as they are with `align_to_words` false."""
    context = "said annnie and lee."
    for whole, start in ((True, "annnie and lee"), (False, "annnie and lee")):
        ((found,),) = (await answered(tmp_path, ask((WHO, context), whole_words=whole))).outputs
        assert found.answer == start
    context = "annnie"
    for whole, answer in ((True, "annnie"), (False, "ann")):
        ((found,),) = (await answered(tmp_path, ask((WHO, context), whole_words=whole, max_answer_tokens=1))).outputs
        assert found.answer == answer


async def test_a_long_context_is_taken_in_windows(tmp_path: Path) -> None:
    """An answer is found wherever it stands in a context over the window; nothing is cut, and windows are told."""
    for at in range(0, 60, 7):
        words = ["said"] * 60
        words[at : at + 2] = ["ann", "lee"]
        engine = KnowingEngine()
        answer = await answered(tmp_path, ask((WHO, " ".join(words))), engine)
        ((found,),) = answer.outputs
        assert (found.answer, found.start) == ("ann lee", 5 * at)
        assert answer.input.windows > 5 and not answer.input.truncated
        assert answer.input.tokens == answer.input.kept == 60 + 2 + SPECIALS
        assert max(len(ids) for ids, _ in engine.rows) == WINDOW


async def test_a_context_of_many_pages_is_answered_as_its_parts(tmp_path: Path) -> None:
    """A context that is too long for the loop, which is read and answered on threads, loses nothing."""
    context = "\u4f60" * 10 + "said" * INLINE_CHARACTERS + " ann lee"
    ((found,),) = (await answered(tmp_path, ask((WHO, context)))).outputs
    assert context[found.start : found.end] == "ann lee"


async def test_that_there_is_no_answer_may_be_one(tmp_path: Path) -> None:
    """If it may be, a context without an answer is answered by nothing at place 0, one with an answer by that."""
    ((none,),) = (await answered(tmp_path, ask((WHO, "bob said"), impossible=True))).outputs
    assert (none.answer, none.start, none.end) == ("", 0, 0) and none.score > 0.5
    ((found,),) = (await answered(tmp_path, ask((WHO, "ann lee"), impossible=True))).outputs
    assert found.answer == "ann lee"


@pytest.mark.parametrize("context", [" ", "\n\t"])
async def test_a_context_of_nothing_has_no_answer(tmp_path: Path, context: str) -> None:
    """White space is answered by nothing, at a score of 0."""
    ((found,),) = (await answered(tmp_path, ask((WHO, context)))).outputs
    assert found == FoundAnswer("", 0.0, 0, 0)


async def test_several_questions_are_answered_in_order(tmp_path: Path) -> None:
    """Each question is answered from its own context, however many windows that takes."""
    asked = [(WHO, "ann lee"), ("bob ?", "said " * 30 + "ann and lee"), (WHO, " "), (WHO, "lee ann")]
    found = (await answered(tmp_path, ask(*asked))).outputs
    assert [one[0].answer for one in found][:3] == ["ann lee", "ann and lee", ""] and len(found) == 4


async def test_equal_answers_are_one(tmp_path: Path) -> None:
    """What is found in several places is answered once, with the scores of all, in whatever case it stands."""
    (found,) = (await answered(tmp_path, ask((WHO, "Ann . ann . ANN"), top_k=9, max_answer_tokens=1))).outputs
    assert found[0].answer == "Ann" and len({one.answer.lower() for one in found}) == len(found)


async def test_a_question_is_cut_where_it_is_asked_for(tmp_path: Path) -> None:
    """`max_question_len` keeps the head of a question, and the answer says that it was cut."""
    engine = KnowingEngine()
    answer = await answered(tmp_path, ask(("who said bob ?", "ann lee"), question_tokens=2), engine)
    assert [WORDS[one] for one in engine.rows[0][0]][:4] == ["[CLS]", "who", "said", "[SEP]"]
    assert answer.input.truncated and (answer.input.tokens, answer.input.kept) == (9, 7)


@pytest.mark.parametrize(("asked", "place"), [(1, "inputs.question"), (2, "inputs[1].question")])
async def test_a_question_that_leaves_no_room_is_refused(tmp_path: Path, asked: int, place: str) -> None:
    """A question that fills the window is refused by its field, with its tokens and the limit, and nothing runs."""
    engine = KnowingEngine()
    long = ("who " * 9, "ann lee")
    refused = await handled(tmp_path, ask(*[(WHO, "ann lee")] * (asked - 1), long), engine)
    assert isinstance(refused, Failure) and refused.kind is FailureKind.TOO_LONG and not engine.rows
    assert refused.detail == f"{place} has 9 tokens, and may have 8 in a window of 12"
    assert (refused.tokens, refused.limit, refused.unit) == (9, 8, "tokens")
    refused = await handled(tmp_path, ask((WHO, "ann lee"), window_tokens=4))
    assert isinstance(refused, Failure) and "may have 0 in a window of 4" in refused.detail


async def test_too_many_windows_are_refused(tmp_path: Path) -> None:
    """Contexts that take more windows than a request may have run none of them, however many they are."""
    for asked, index in ([(WHO, "ann lee"), (WHO, "said " * 900)], 1), ([(WHO, "said " * 120)] * 3, None):
        engine = KnowingEngine()
        refused = await handled(tmp_path, ask(*asked), engine)
        assert isinstance(refused, Failure) and refused.kind is FailureKind.TOO_LONG and not engine.rows
        assert str(MOST_WINDOWS) in refused.detail and "said" not in refused.detail
        assert (refused.limit, refused.unit, refused.index) == (MOST_WINDOWS, "windows", index)
        assert refused.tokens > MOST_WINDOWS


@pytest.mark.parametrize("marked", ["LEE\u0301", "LE\u0301E", "LEE\u0941"])
async def test_an_answer_has_the_marks_of_its_last_letter(tmp_path: Path, marked: str) -> None:
    """An answer that ends with a letter with a combining mark of its own has that mark."""
    context = f"said Ann and {marked}."
    ((found,),) = (await answered(tmp_path, ask((WHO, context)))).outputs
    assert found.answer == context[found.start : found.end] == f"Ann and {marked}"
