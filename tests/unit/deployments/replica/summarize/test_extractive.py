"""Extractive summaries: whole sentences of the text, in its order, from what was read in time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from fake_engines import END, WORDS, FakeReader, ranker, reader_manifest, text_tokens, through
from fakes import FakeClock

from deployments.replica.sentences import split_sentences
from deployments.replica.summarize.extractive import MOST_IN_BATCH, ExtractiveSummarizer
from deployments.replica.writing.job import TextBudget, WritingResult
from gateway.tasks.summarize import SummarizeParameters


def sentence(at: int, length: int = 6) -> str:
    """The sentence of that number, which differs from all others."""
    picked = [WORDS[(at + 5 * place * (1 + at // len(WORDS))) % len(WORDS)] for place in range(length)]
    return " ".join(picked).capitalize() + f" {WORDS[at % 12]}."


def text_of(count: int) -> str:
    """A text of that number of sentences, of 4 to 12 words in rotation."""
    return " ".join(sentence(at, 4 + at * 5 % 9) for at in range(count))


def condense(
    engine: FakeReader, text: str, budget_s: float = 60.0, reserve_s: float = 0.0, **given: Any
) -> WritingResult:
    """The summary of the text within the budget."""
    room = TextBudget(engine.clock() + budget_s, reserve_s, engine.clock)
    reader = ExtractiveSummarizer(reader_manifest(), engine, text_tokens(), ranker())
    condensed = through(reader.begin(text, SummarizeParameters(**given), room))
    assert isinstance(condensed, WritingResult)
    return condensed


def sentences_of(text: str) -> list[str]:
    """The sentences of the text."""
    return [text[span.start : span.end] for span in split_sentences(text)]


def engine(**how: Any) -> FakeReader:
    """An extractive engine with a clock of its own."""
    return FakeReader(FakeClock(), **how)


def test_a_summary_is_whole_sentences_in_their_order() -> None:
    """A summary has whole sentences of the text in their order, none twice; three where the client gives no number."""
    text = text_of(30)
    condensed = condense(engine(), text)
    all_of_them = sentences_of(text)
    places = [all_of_them.index(one) for one in sentences_of(condensed.text)]
    assert len(places) == 3 and places == sorted(set(places))
    assert condensed.generation.finish_reason == "stop" and condensed.generation.steps == math.ceil(30 / MOST_IN_BATCH)
    assert condensed.input.tokens == condensed.input.kept and not condensed.input.truncated


def test_with_time_enough_alike_lengths_run_together() -> None:
    """With time enough, sentences of like length share a batch of at most eight, so that little is padded."""
    reading = engine()
    condense(reading, text_of(60))
    assert max(map(len, reading.batches)) == MOST_IN_BATCH
    lengths = [len(row) for batch in reading.batches for row in batch]
    assert len(lengths) == 60 and lengths == sorted(lengths)


@pytest.mark.parametrize("batches", [1, 3, 9, 20])
def test_an_early_deadline_leaves_the_beginning(batches: int) -> None:
    """If the time runs out, the sentences read are the beginning of the text, and the summary is chosen from them."""
    text, reading = text_of(200), engine()
    condensed = condense(reading, text, batches * 0.01 + 0.005)
    assert len(reading.batches) == batches and condensed.generation.finish_reason == "deadline"
    tokens = text_tokens()
    read = {tuple(row) for batch in reading.batches for row in batch}
    order = [tuple(tokens.encode(one)) in read for one in sentences_of(text)]
    whole_stretches = 64 * (batches * MOST_IN_BATCH // 64)
    assert all(order[:whole_stretches]) and sum(order) >= batches * MOST_IN_BATCH
    if batches < 8:
        assert order[: batches * MOST_IN_BATCH] == [True] * (batches * MOST_IN_BATCH)
    assert condensed.input.truncated and 0 < condensed.input.kept < condensed.input.tokens
    assert condensed.input.tokens == pytest.approx(sum(len(tokens.encode(one)) for one in sentences_of(text)), rel=0.5)


def test_no_time_is_no_text() -> None:
    """The engine is not run if not one batch fits the budget."""
    for budget_s in (-1.0, 0.0, 0.009):
        reading = engine()
        condensed = condense(reading, text_of(9), budget_s)
        assert condensed.text == "" and condensed.generation.finish_reason == "deadline" and reading.began == []
        assert condensed.input.kept == 0 < condensed.input.tokens and condensed.input.truncated


def test_a_step_ends_before_the_reserve_begins() -> None:
    """The last batch ends by the deadline less the reserve."""
    reading = engine()
    assert condense(reading, text_of(200), 0.1, reserve_s=0.035).generation.headroom_s >= 0.035
    assert len(reading.batches) == 6


@pytest.mark.parametrize("most", [1, 2, 3, 5, 8, 13, 21, 34, 100, 4096])
def test_the_clients_most_tokens_hold(most: int) -> None:
    """A summary has at most `max_new_tokens` tokens; if no sentence is that short, part of one ends with `length`."""
    condensed = condense(engine(), text_of(30), max_new_tokens=most)
    assert 0 < condensed.generation.tokens <= most and condensed.text
    assert condensed.generation.tokens == len(text_tokens().encode(condensed.text)) - 2
    whole = all(one in sentences_of(text_of(30)) for one in sentences_of(condensed.text))
    assert whole == (condensed.generation.finish_reason == "stop")


def test_the_clients_least_tokens_take_more_sentences() -> None:
    """A summary has `min_new_tokens` tokens as far as the text goes; a short text is never an error."""
    usual = condense(engine(), text_of(30)).generation.tokens
    longer = condense(engine(), text_of(30), min_new_tokens=100).generation.tokens
    assert usual < 75 <= longer
    assert condense(engine(), text_of(5), min_new_tokens=4096).text == text_of(5)


def test_a_sentence_over_the_encoders_window_is_cut_for_it_alone() -> None:
    """A sentence over the encoder's window is cut for the encoder only, and the report says so."""
    text = " ".join(WORDS * 5).capitalize() + "."
    reading = engine()
    condensed = condense(reading, text)
    assert len(reading.batches[0][0]) == 32 and reading.batches[0][0][-1] == END
    assert condensed.text == text and condensed.input.truncated and condensed.input.kept == 32


@pytest.mark.parametrize("vector", [[math.nan] * 4, [math.inf, 0, 0, 0], [0.0] * 4, [1e30, -1e30, 1, 1]])
def test_vectors_that_say_nothing_choose_all_the_same(vector: list[float]) -> None:
    """If the vectors are NaN, infinite or zero, sentences are chosen by what else is known of them."""
    text = text_of(30)
    condensed = condense(engine(vector=vector), text)
    chosen = sentences_of(condensed.text)
    assert chosen and all(one in sentences_of(text) for one in chosen)


@pytest.mark.parametrize("text", [" ", "\n \n", "\x00", "\ud800", "\x00 \ud800" * 3000])
def test_a_text_without_a_word_has_no_summary(text: str) -> None:
    """A text without a word is answered without running the engine."""
    reading = engine()
    condensed = condense(reading, text)
    assert condensed.text == "" and reading.began == [] and condensed.input.kept == 0


@pytest.mark.parametrize("text", ["word", "...", "?", "x" * 1_000_000, "a\x00b \ud800c.", "\ud800 word"])
def test_any_text_with_something_in_it_has_a_summary(text: str) -> None:
    """Any text with something in it gets a summary, even only marks, one endless word or invalid characters."""
    condensed = condense(engine(), text)
    assert condensed.text and condensed.generation.finish_reason == "stop"
    assert condense(engine(), text[:9], max_new_tokens=1).text


def test_what_is_left_counts_down() -> None:
    """The forecast time left, `left_s`, is near the truth from the start and ends at zero."""
    reading = engine()
    text = " ".join(sentence(at, 12) for at in range(200))
    room = TextBudget(reading.clock() + 60, 0.0, reading.clock)
    condensing = ExtractiveSummarizer(reader_manifest(), reading, text_tokens(), ranker()).begin(
        text, SummarizeParameters(), room
    )
    seen = [room.left_s]
    while not condensing.step():
        seen.append(room.left_s)
    left = [0.01 * batches for batches in range(len(seen) - 1, -1, -1)]
    assert seen == [pytest.approx(truth, rel=0.7) for truth in left]


def test_the_engines_answer_is_taken_only_whole() -> None:
    """Fewer vectors than sentences, or an error that the engine raises, is the engine's failure."""

    class Short(FakeReader):
        def run(self, token_ids: Any, attention_mask: Any, token_types: Any | None = None) -> Any:
            return np.zeros((1, 4), np.float32)

    with pytest.raises(ValueError, match="shorter"):
        condense(Short(FakeClock()), text_of(9))
    with pytest.raises(ArithmeticError):
        condense(engine(fails_at=2), text_of(30))
