"""Translating a text: sentence by sentence, within the budget, with nothing invented and nothing lost unsaid."""

from __future__ import annotations

import pytest
from fake_engines import END, STOP, WORDS, FakeSeq2Seq, Saying, says, text_tokens, words
from fake_translators import TOKENS, WINDOW, catalog, manifest
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from deployments.replica.translate.replica import TranslatorReplica
from deployments.replica.translate.translating import COPIED_AT_ONCE, COUNTED_CHARACTERS, Translator, whole_words
from deployments.replica.writing.job import TextBudget, WritingJob, WritingResult
from gateway.model.messages import Answer, Delta, Failure, FailureKind, InputReport, Work
from gateway.tasks.translate import Direction, Pair, TranslateParameters, TranslatorManifest

THREE = "The river rose. The bridge closed. People waited."


def copies(source: tuple[int, ...], written: tuple[int, ...]) -> int:
    """Write what was read, so that a translation shows which part it is of."""
    said = [token for token in source if token >= STOP and token < 5 + len(WORDS)]
    return said[len(written)] if len(written) < len(said) else END


def begun(
    text: str,
    remaining_s: float = 60.0,
    made: TranslatorManifest | None = None,
    saying: Saying = copies,
    **parameters: object,
) -> tuple[WritingJob, FakeSeq2Seq]:
    """The job of a text, and the engine that will translate it."""
    clock = FakeClock()
    engine = FakeSeq2Seq(clock, saying)
    translator = Translator(made or manifest(), engine, text_tokens())
    asked = TranslateParameters(**parameters)  # type: ignore[arg-type]  # by name, each of its own kind
    return translator.begin(text, asked, TextBudget(clock() + remaining_s, 0.0, clock)), engine


def done(job: WritingJob) -> WritingResult:
    """The result of a job, run to its end; what is settled on the way is a beginning of it."""
    told = [""]
    while not job.step():
        assert job.budget.left_s >= 0
        told.append(job.settled())
        assert told[-1].startswith(told[-2])
    assert isinstance(job.outcome, WritingResult)
    assert job.outcome.text.startswith(told[-1])
    return job.outcome


def test_a_text_is_translated_sentence_by_sentence() -> None:
    """Each sentence is read alone, and the translation has them all, in order, in the text's own lines."""
    job, engine = begun("The river rose. The bridge closed.\n\nPeople waited.")
    found = done(job)
    assert found.text == "the river rose. the bridge closed.\n\npeople waited."
    assert [len(one) for one in engine.read] == [6, 6, 5]
    assert (found.generation.finish_reason, found.generation.pieces, found.input.truncated) == ("stop", 3, False)
    assert found.generation.tokens == 11 and found.generation.lead is False


def test_what_is_not_translated_in_time_is_left_out_and_said_so() -> None:
    """A deadline within the second sentence leaves its whole words; nothing stands in for the rest."""
    found = done(begun(THREE, remaining_s=0.095)[0])
    assert found.text == "the river rose. the"
    assert found.generation.finish_reason == "deadline" and found.input.truncated
    assert 0 < found.input.kept < found.input.tokens


def test_a_text_that_nothing_was_translated_of_is_empty() -> None:
    """Without time for a first word there is none, and above all not the text's own first sentence."""
    found = done(begun(THREE, remaining_s=0.01)[0])
    assert (found.text, found.generation.finish_reason, found.input.kept) == ("", "deadline", 0)
    late = done(begun(THREE, remaining_s=-1.0)[0])
    assert (late.text, late.generation.finish_reason) == ("", "deadline")
    assert found.generation.lead and late.generation.lead  # so that no quality is counted


def test_a_limit_of_new_tokens_is_of_the_whole_translation() -> None:
    """Sentences after the limit are left out, and said so."""
    found = done(begun(THREE, max_new_tokens=6)[0])
    assert found.text == "the river rose. the" and found.generation.tokens == 6
    assert found.generation.finish_reason == "length" and found.input.truncated


def test_a_sentence_over_the_window_is_translated_in_parts() -> None:
    """A sentence that the window would cut is parted between words, so that its end is not lost."""
    long = " ".join(["river"] * 50) + "."
    job, engine = begun(long)
    found = done(job)
    assert found.text == long and not found.input.truncated
    assert len(engine.read) == 4 and all(len(one) <= WINDOW for one in engine.read)


@pytest.mark.parametrize(("truncation", "kept"), [("longest_first", WINDOW - 2), ("error", None)])
def test_a_text_may_be_taken_as_one_input(truncation: str, kept: int | None) -> None:
    """`longest_first` keeps the head of a text over the window, `error` refuses it with both numbers."""
    job, engine = begun(" ".join(["river"] * 40), truncation=truncation)
    while not job.step():
        pass
    if kept is None:
        assert job.outcome == Failure(FailureKind.TOO_LONG, "over the checkpoint's window", 42, WINDOW)
    else:
        assert isinstance(job.outcome, WritingResult) and len(engine.read) == 1
        assert (job.outcome.input.tokens, job.outcome.input.kept) == (40, kept) and job.outcome.input.truncated


def test_what_has_no_letters_is_copied() -> None:
    """Numbers and marks are the same in every language: no model is asked, and none can invent something."""
    job, engine = begun("12.50\n\n***\n\n\U0001f600")
    assert done(job).text == "12.50\n\n***\n\n\U0001f600" and not engine.read
    assert done(begun(" \n ")[0]).text == ""


def test_copying_leaves_room_for_others_and_ends_in_time() -> None:
    """However many pieces have no letters, others run between them, and the deadline holds."""
    rows = "\n".join(["#"] * 5 * COPIED_AT_ONCE)
    job, engine = begun(rows)
    rounds = 1
    while not job.step():
        rounds += 1
    assert rounds == 6 and not engine.read
    assert isinstance(job.outcome, WritingResult) and job.outcome.text == rows
    assert job.outcome.generation.steps == 0 and job.outcome.input == InputReport(0, 0, False)
    late, engine = begun(rows)
    assert not late.step()
    assert rows.startswith(late.settled()) and late.settled()
    engine.clock.advance(61.0)
    assert late.step() and isinstance(late.outcome, WritingResult)
    assert late.outcome.generation.finish_reason == "deadline" and late.outcome.input.truncated
    assert late.outcome.text == "\n".join(["#"] * COPIED_AT_ONCE)


@pytest.mark.parametrize(
    "text", ["The river rose.\n", "\n\n  The river rose. \n ", " 123 ", "***\nPeople waited.\n\n12"]
)
@pytest.mark.parametrize("truncation", ["chunk", "longest_first"])
def test_white_space_and_numbers_are_not_said_to_be_cut(text: str, truncation: str) -> None:
    """Where every word was translated nothing was cut, whatever stands round the words."""
    found = done(begun(text, truncation=truncation)[0])
    assert found.generation.finish_reason == "stop"
    assert found.input.kept == found.input.tokens and not found.input.truncated


@given(sentences=st.lists(st.integers(1, 6), min_size=1, max_size=5), remaining_s=st.floats(-0.1, 0.6))
def test_a_text_has_as_many_tokens_whatever_its_budget(sentences: list[int], remaining_s: float) -> None:
    """What was left out is counted, too: the tokens of a text are no matter of time."""
    text = "\n".join(" ".join(WORDS[at] for at in range(count)).capitalize() + "." for count in sentences)
    whole, cut = done(begun(text)[0]), done(begun(text, remaining_s)[0])
    assert cut.input.tokens == whole.input.tokens == whole.input.kept


def test_the_tokens_of_a_long_text_are_estimated_by_its_own() -> None:
    """Of a long text the head is counted, and the rest has as many tokens a character."""
    sentence = "The river rose. "
    found = done(begun(COUNTED_CHARACTERS * sentence, -1.0)[0])
    assert found.input.tokens == pytest.approx(4 * COUNTED_CHARACTERS, rel=0.01) and found.input.truncated


def test_a_direction_is_told_by_tokens() -> None:
    """The source's token stands before every sentence; the target's is written first, and is no part of the text."""
    job, engine = begun(
        "The river rose. People waited.", made=manifest(pairs=(), languages=TOKENS), source="en", target="zh"
    )
    found = done(job)
    assert [one[0] for one in engine.read] == [40, 40] and found.generation.finish_reason == "stop"
    behind = TOKENS.model_copy(update={"behind": True})
    job, engine = begun("River.", made=manifest(pairs=(), languages=behind), source="en", target="de")
    done(job)
    assert engine.read[0][-1] == 40


def test_a_direction_is_told_by_a_prefix() -> None:
    """T5's words stand before every sentence."""
    pair = Pair(source="en", target="de", prefix="town : ")
    job, engine = begun("River. Bridge.", made=manifest(pairs=(pair,)))
    assert done(job).text.count("town") == 2 and len({one[1] for one in engine.read}) == 1


def test_other_languages_are_refused() -> None:
    """A pair that the checkpoint does not translate is a failure, not a guess."""
    job, _ = begun(THREE, source="fr", target="de")
    assert job.step() and isinstance(job.outcome, Failure) and job.outcome.kind is FailureKind.REFUSED


def test_more_time_gives_more_beams() -> None:
    """A search is as wide as asked for where the budget allows it, and greedy where it does not."""
    assert done(begun(THREE, num_beams=4)[0]).generation.beams == 4
    assert done(begun(THREE, num_beams=4, remaining_s=0.3)[0]).generation.beams < 4


@given(
    sentences=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    remaining_s=st.floats(0.0, 0.6),
    beams=st.sampled_from([1, 2]),
)
def test_no_step_ends_too_late_and_nothing_told_is_taken_back(
    sentences: list[int], remaining_s: float, beams: int
) -> None:
    """Whatever the budget: steps end in time, the text is a beginning of the whole, and what is missing is said."""
    text = " ".join(" ".join(WORDS[at] for at in range(count)).capitalize() + "." for count in sentences)
    whole = done(begun(text, num_beams=beams)[0])
    job, engine = begun(text, remaining_s, num_beams=beams)
    found = done(job)
    assert engine.clock() <= job.budget.stop_at + 1e-9 or not engine.began
    assert whole.text.startswith(found.text) and whole.generation.finish_reason == "stop"
    assert (found.text == whole.text) or (found.generation.finish_reason == "deadline" and found.input.truncated)


@pytest.mark.parametrize(
    ("target", "text", "cut"),
    [("de", "alles ist g", "alles ist"), ("de", "al", ""), ("zh", "一切都好", "一切都"), ("zh", "", "")],
)
def test_half_a_word_is_left_out(target: str, text: str, cut: str) -> None:
    """A text that was cut loses its last word, or its last letter where words have no spaces."""
    assert whole_words(text, Direction("en", target)) == cut


def work(text: str, remaining_s: float, *, strict: bool = False, streamed: bool = False) -> Work:
    """A request as a replica gets it."""
    return Work("translate", (text, "River."), TranslateParameters(), remaining_s, strict, "1", None, streamed)


async def answered(asked: Work) -> tuple[Answer | Failure, list[Delta]]:
    """What a replica answers, and what it emits before."""
    clock = FakeClock()
    translator = Translator(manifest(), FakeSeq2Seq(clock, says([*words(3), STOP])), text_tokens())
    replica = TranslatorReplica(catalog().checkpoints[0], translator, 8, clock)
    replica.start()
    emitted: list[Delta] = []
    try:
        (answer,) = await replica.handle([asked], lambda place, delta: emitted.append(delta))
    finally:
        await replica.stop(1.0)
    return answer, emitted


async def test_strict_work_that_is_not_all_translated_is_expired() -> None:
    """Strict work is whole or EXPIRED; best effort has what was translated, and says that it was cut."""
    assert await answered(work(THREE, 0.2, strict=True)) == (Failure(FailureKind.EXPIRED), [])
    cut, _ = await answered(work(THREE, 0.2))
    assert isinstance(cut, Answer) and "deadline" in {one.finish_reason for one in cut.generation}


async def test_deltas_are_the_translation() -> None:
    """What is streamed, joined, is the plain answer, text by text."""
    plain, none = await answered(work(THREE, 60.0))
    streamed, emitted = await answered(work(THREE, 60.0, streamed=True))
    assert isinstance(plain, Answer) and isinstance(streamed, Answer) and not none
    outputs = [one.translation_text for one in streamed.outputs]
    assert outputs == [one.translation_text for one in plain.outputs]
    assert ["".join(one.text for one in emitted if one.index == at) for at in range(2)] == outputs
    assert len(emitted) > 4
