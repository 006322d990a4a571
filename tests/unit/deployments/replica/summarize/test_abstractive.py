"""Abstractive summaries of a text that fits one window: why one ends, what is planned, what the client gets."""

from __future__ import annotations

from typing import Any

import pytest
from fake_engines import (
    PAD,
    STOP,
    FakeSeq2Seq,
    says,
    text_tokens,
    through,
    words,
    writer_manifest,
)
from fakes import FakeClock

from deployments.replica.summarize.abstractive import AbstractiveSummarizer
from deployments.replica.writing.beam_search import search_rules, write
from deployments.replica.writing.job import TextBudget, WritingResult
from gateway.model.messages import Failure, FailureKind, InputReport
from gateway.tasks.summarize import SummarizeParameters

TEXT = "The river rose. The bridge was closed for hours."
SOURCE_TOKENS = 13
TWO_SENTENCES = [*words(3), STOP, *words(4), STOP]


def summary(
    engine: FakeSeq2Seq, budget_s: float, text: str = TEXT, reserve_s: float = 0.0, window: int = 64, **given: Any
) -> WritingResult:
    """The summary of the text within the budget; `given` are parameters, `rules__NAME` rules of the checkpoint."""
    rules = {name[7:]: given.pop(name) for name in list(given) if name.startswith("rules__")}
    manifest = writer_manifest(window, **rules)
    room = TextBudget(engine.clock() + budget_s, reserve_s, engine.clock)
    condensed = through(
        AbstractiveSummarizer(manifest, engine, text_tokens()).begin(text, SummarizeParameters(**given), room)
    )
    assert isinstance(condensed, WritingResult)
    return condensed


def engine(tokens: list[int] | None = None, **how: Any) -> FakeSeq2Seq:
    """An engine that writes these tokens, by default two sentences."""
    return FakeSeq2Seq(FakeClock(), says(TWO_SENTENCES if tokens is None else tokens), **how)


def test_a_text_that_ends_by_itself_is_given_whole() -> None:
    """A text that ends by itself is returned whole, with `stop` and a report of what was run and read."""
    condensed = summary(engine(), 60.0)
    assert condensed.text == "the river rose. the river rose bridge."
    generation = condensed.generation
    assert (generation.finish_reason, generation.tokens, generation.pieces) == ("stop", len(TWO_SENTENCES), 1)
    assert condensed.input == InputReport(SOURCE_TOKENS, SOURCE_TOKENS, False)
    assert generation.headroom_s > 58 and not generation.lead


def test_a_text_that_ends_by_itself_needs_no_full_stop() -> None:
    """A text that ends by itself is never trimmed, even if it is one word without a full stop."""
    assert summary(engine(words(1)), 60.0).text == "the"
    assert summary(engine(words(5)), 60.0).text == "the river rose bridge closed"


def test_the_clients_most_tokens_are_a_length() -> None:
    """A text cut by the client's `max_new_tokens` ends with `length` and a whole sentence, and no more steps run."""
    writing = engine()
    condensed = summary(writing, 60.0, max_new_tokens=6, num_beams=1)
    assert condensed.text == "the river rose."
    assert condensed.generation.finish_reason == "length" and condensed.generation.max_new_tokens == 6
    assert len(writing.rows) == condensed.generation.steps == 6


def test_the_checkpoints_most_tokens_are_a_length_too() -> None:
    """A client that asks for more tokens than the checkpoint's limit gets the checkpoint's limit."""
    condensed = summary(engine(words(100)), 60.0, max_new_tokens=100, rules__max_new_tokens=9)
    assert condensed.generation.finish_reason == "length" and condensed.generation.max_new_tokens == 9
    assert len(condensed.text.split()) == 8, "the last word may be half a word"


def test_fewer_tokens_for_want_of_time_are_the_deadlines_doing() -> None:
    """A text ends with `deadline` if the budget allowed fewer tokens than were wanted, and it used them all."""
    condensed = summary(engine(words(100)), 0.02 + 0.055)
    assert condensed.generation.max_new_tokens == 5 and condensed.generation.steps == 5
    assert condensed.generation.finish_reason == "deadline"
    assert condensed.text == "the river rose bridge"


def test_slower_steps_than_forecast_end_in_time() -> None:
    """A text slower than forecast is cut with `deadline`: only its last step may pass the deadline less the reserve."""
    writing = engine(words(100), step_s=0.02)
    condensed = summary(writing, 0.15, reserve_s=0.01, num_beams=1)
    assert condensed.generation.finish_reason == "deadline"
    assert 0 < condensed.generation.steps < condensed.generation.max_new_tokens
    assert condensed.generation.headroom_s >= 0.01 - 0.02


def test_no_time_to_read_is_no_text() -> None:
    """Nothing is run or written if the budget is too small for the encoder."""
    for budget_s in (-1.0, 0.0, 0.019):
        writing = engine()
        condensed = summary(writing, budget_s)
        assert (condensed.text, condensed.generation.finish_reason, condensed.generation.steps) == ("", "deadline", 0)
        assert writing.began == []


def test_a_text_that_has_ended_while_others_were_looked_for_is_whole() -> None:
    """A search that the deadline stops after its best text has ended returns that text whole, with `stop`."""
    how: dict[str, Any] = {"rules__output_tokens": 2.0, "num_beams": 4}
    to_the_end = summary(engine(words(4)), 60.0, **how)
    cut = summary(engine(words(4), step_s=0.02), 0.021 + 8 * 0.04, **how)
    assert cut.generation.steps < to_the_end.generation.steps and cut.generation.finish_reason == "stop"
    assert cut.text == to_the_end.text == "the river rose bridge"


@pytest.mark.parametrize("tokens", [words(3), words(100)])
def test_after_its_last_step_nothing_is_left_to_be_run(tokens: list[int]) -> None:
    """After its last step a text has no work left, whether it ended by itself or no further step fits."""
    writing = engine(tokens)
    room = TextBudget(writing.clock() + 0.2, 0.0, writing.clock)
    condensing, left = (
        AbstractiveSummarizer(writer_manifest(), writing, text_tokens()).begin(TEXT, SummarizeParameters(), room),
        [],
    )
    while not condensing.step():
        left.append(room.left_s)
    assert room.left_s == 0 and min(left) > 0


def test_a_text_that_waits_for_its_turns_begins_no_step_that_would_end_late() -> None:
    """A text that waits between its time slices never begins a step that would end late."""
    writing = engine(words(100))
    room = TextBudget(writing.clock() + 0.2, 0.02, writing.clock)
    condensing = AbstractiveSummarizer(writer_manifest(), writing, text_tokens()).begin(
        TEXT, SummarizeParameters(num_beams=1), room
    )
    while not condensing.step():
        assert room.left_s > 0 or not room.fits(0.01)
        if len(writing.rows) == 4:
            writing.clock.advance(0.125)
    assert len(writing.rows) == 4 and room.headroom_s > 0.1
    assert isinstance(condensing.outcome, WritingResult) and condensing.outcome.generation.finish_reason == "deadline"


@pytest.mark.parametrize(("budget_s", "beams"), [(60.0, 4), (0.02 + 0.25, 2), (0.02 + 0.13, 1), (0.05, 1)])
def test_beams_follow_the_budget(budget_s: float, beams: int) -> None:
    """The plan has as many beams as the budget allows with half as many tokens more than expected."""
    writing = engine()
    assert summary(writing, budget_s).generation.beams == beams
    assert max(writing.rows) <= beams


def test_the_clients_beams_are_the_most() -> None:
    """A client's `num_beams` is never exceeded, however much time there is."""
    writing = engine()
    assert summary(writing, 60.0, num_beams=2).generation.beams == 2
    assert max(writing.rows) == 2


def test_the_clients_least_tokens_are_written() -> None:
    """A text has at least `min_new_tokens` tokens, as far as the budget allows."""
    condensed = summary(engine(words(3)), 60.0, min_new_tokens=7, num_beams=1)
    assert condensed.generation.tokens >= 7
    short = summary(engine(words(3)), 0.02 + 0.045, min_new_tokens=7, num_beams=1)
    assert short.generation.max_new_tokens == 4 and short.generation.steps == 4


@pytest.mark.parametrize("beams", [1, 4])
def test_with_time_enough_it_writes_what_the_plain_loop_writes(beams: int) -> None:
    """With time enough, a summary has the tokens that plain writing (`write`) gives, greedily and with beams."""
    manifest = writer_manifest()
    tokens = text_tokens()
    rules = search_rules(manifest.generation, PAD, beams=beams)
    plain = tokens.decode(write(engine(), tokens.encode(TEXT), rules))
    assert summary(engine(), 60.0, num_beams=beams).text == plain


def test_a_text_over_the_window_keeps_its_head_where_asked() -> None:
    """With `longest_first`, a text over the window is cut to fit, and the report counts or guesses its whole length."""
    writing = engine()
    condensed = summary(writing, 60.0, text=TEXT * 3, window=20, truncation="longest_first")
    assert len(writing.read[0]) == 20 and writing.read[0][-1] == 2
    assert condensed.input.kept == 20 < condensed.input.tokens and condensed.input.truncated
    assert condensed.generation.pieces == 1
    long = summary(engine(), 60.0, text=(TEXT + " ") * 1000, window=20, truncation="longest_first").input
    assert long.kept == 20 and long.tokens == pytest.approx(11 * 1000, rel=0.2)


def test_a_text_over_the_window_is_an_error_where_asked() -> None:
    """With `error`, a text over the window fails with the counts of text and window, and nothing is run."""
    writing = engine()
    room = TextBudget(writing.clock() + 60, 0.0, writing.clock)
    writer = AbstractiveSummarizer(writer_manifest(20), writing, text_tokens())
    failure = through(writer.begin(TEXT * 3, SummarizeParameters(truncation="error"), room))
    assert isinstance(failure, Failure) and failure.kind is FailureKind.TOO_LONG
    assert (failure.tokens, failure.limit) == (3 * (SOURCE_TOKENS - 2) + 2, 20) and writing.began == []
    fitting = summary(engine(), 60.0, truncation="error")
    assert fitting.input == InputReport(SOURCE_TOKENS, SOURCE_TOKENS, False)


def test_the_prefix_goes_before_the_text_and_counts() -> None:
    """T5's prefix is read before the text, and is counted among its tokens."""
    writing = engine()
    condensed = summary(writing, 60.0, rules__prefix="dark: ")
    prefix = tuple(text_tokens().encode("dark:")[1:-1])
    assert writing.read[0][1:3] == prefix and condensed.input.kept == SOURCE_TOKENS + 2


def test_what_has_lost_its_capitals_gets_the_sources() -> None:
    """A lower-cased checkpoint's summary gets the capitals of its source."""
    condensed = summary(
        engine([*words(2), 8, STOP]), 60.0, text="In Town the River met the Bridge.", rules__lower_cased=True
    )
    assert condensed.text == "the River Bridge."


@pytest.mark.parametrize("text", ["x" * 100_000, "\x00 \ud800" * 5000, "the river " * 500, "\u4e2d" * 61])
@pytest.mark.parametrize("truncation", ["chunk", "longest_first"])
def test_any_text_has_an_end(text: str, truncation: Any) -> None:
    """Any text, even whitespace, invalid characters or one endless word, ends in an answer with a consistent report."""
    condensed = summary(engine(), 60.0, text=text, window=20, truncation=truncation)
    assert condensed.text and condensed.generation.finish_reason == "stop"
    assert condensed.input.truncated == (condensed.input.kept < condensed.input.tokens)


@pytest.mark.parametrize(
    ("text", "summarised"),
    [
        ("ok", "ok"),
        (" word \n", "word"),
        ("...!?", "...!?"),
        ("\ud800", "\ud800"),
        ("The river rose again.", "The river rose again."),
        (" ", ""),
        ("\n\n", ""),
        ("\x00", ""),
        ("\u200b\ufeff\u2060", ""),
        (" \u200b" * 5000, ""),
    ],
)
@pytest.mark.parametrize("truncation", ["chunk", "longest_first", "error"])
@pytest.mark.parametrize("budget_s", [60.0, 0.0])
def test_what_is_too_short_to_summarise_comes_back_as_it_is(
    text: str, summarised: str, truncation: Any, budget_s: float
) -> None:
    """A text of a few words is its own summary, and one that says nothing has an empty one: no engine runs for it."""
    writing = engine()
    condensed = summary(writing, budget_s, text=text, truncation=truncation)
    assert (condensed.text, condensed.generation.finish_reason) == (summarised, "short")
    assert writing.read == [] and condensed.generation.steps == 0 and not condensed.input.truncated


def test_an_engine_that_raises_is_heard() -> None:
    """An error that the engine raises comes out of the step."""
    with pytest.raises(ArithmeticError):
        summary(engine(fails_at=3), 60.0)


def test_the_pace_is_learnt_from_what_steps_take() -> None:
    """The plan learns from measured steps: after texts twice as slow as forecast it expects such steps."""
    writing = engine(words(100), step_s=0.02, encode_s=0.04)
    writer = AbstractiveSummarizer(writer_manifest(), writing, text_tokens())
    planned = []
    for _ in range(8):
        condensed = through(
            writer.begin(TEXT, SummarizeParameters(num_beams=1), TextBudget(writing.clock() + 0.3, 0, writing.clock))
        )
        assert isinstance(condensed, WritingResult)
        planned.append(condensed.generation.max_new_tokens)
    assert planned[0] == 24 and planned[-1] == pytest.approx((0.3 - 0.04) / 0.02, abs=2)
