"""Abstractive summaries of a text over the window: piece by piece, then of the pieces' summaries, in time."""

from __future__ import annotations

from typing import Any

import pytest
from counted_steps import steps_of
from fake_engines import STOP, WORDS, FakeSeq2Seq, Saying, says, says_head, text_tokens, through, words, writer_manifest
from fakes import FakeClock

from deployments.replica.sentences import split_sentences
from deployments.replica.summarize.abstractive import AbstractiveSummarizer
from deployments.replica.writing.job import TextBudget, WritingResult
from gateway.tasks.summarize import SummarizeParameters

WINDOW = 40
WRITES = 6


def sentence(at: int) -> str:
    """Nine words and a full stop; the first two words identify its place."""
    return " ".join([WORDS[at % 12], WORDS[at // 12 % 12], *WORDS[:7]]).capitalize() + "."


def text_of(sentences: int) -> str:
    """A text of `sentences` sentences, some on lines of their own."""
    return "".join(sentence(at) + ("\n\n" if at % 5 == 4 else " ") for at in range(sentences)).strip()


def condense(
    engine: FakeSeq2Seq, text: str, budget_s: float = 600.0, reserve_s: float = 0.0, window: int = WINDOW, **given: Any
) -> WritingResult:
    """The summary of the text; the plan expects as many tokens as the engine writes."""
    rules = {name[7:]: given.pop(name) for name in list(given) if name.startswith("rules__")}
    manifest = writer_manifest(window, output_tokens=WRITES, **rules)
    room = TextBudget(engine.clock() + budget_s, reserve_s, engine.clock)
    condensed = through(
        AbstractiveSummarizer(manifest, engine, text_tokens()).begin(text, SummarizeParameters(**given), room)
    )
    assert isinstance(condensed, WritingResult)
    return condensed


def engine(saying: Saying | None = None, **how: Any) -> FakeSeq2Seq:
    """Writes the first four words of what it reads."""
    return FakeSeq2Seq(FakeClock(), saying or says_head(WRITES - 2), **how)


def read_texts(writing: FakeSeq2Seq) -> list[str]:
    """What the engine was given, without specials."""
    return [text_tokens().decode(ids) for ids in writing.read]


def test_a_long_text_is_read_to_its_end_and_written_of_once_more() -> None:
    """A long text is cut into pieces of whole sentences that fit the window; then their summaries are summarised."""
    writing, text = engine(), text_of(12)
    condensed = condense(writing, text)
    assert all(len(ids) <= WINDOW for ids in writing.read)
    pieces = condensed.generation.pieces
    assert pieces == 4
    assert " ".join(read_texts(writing)[:pieces]).split() == text.lower().split()
    assert all(piece.endswith(".") for piece in read_texts(writing))
    assert condensed.input.kept == condensed.input.tokens == 12 * 10 + 2 and not condensed.input.truncated
    assert condensed.generation.finish_reason == "stop"
    assert condensed.generation.steps == len(writing.rows) and condensed.generation.tokens <= WRITES


def test_a_very_long_text_takes_more_rounds() -> None:
    """A very long text takes more rounds: the pieces' summaries are cut again while they are over the window."""
    writing = engine()
    condensed = condense(writing, text_of(100))
    pieces = condensed.generation.pieces
    assert 33 <= pieces <= 40 and len(writing.read) > pieces + 2
    assert condensed.generation.finish_reason == "stop" and not condensed.input.truncated
    assert all(len(ids) <= WINDOW for ids in writing.read)


def test_when_the_time_runs_out_what_was_written_is_the_answer() -> None:
    """When the time runs out, the first pieces' summaries are the answer, and the report says what was not read."""
    writing, text = engine(), text_of(100)
    condensed = condense(writing, text, 0.5, reserve_s=0.02, num_beams=1)
    generation, read = condensed.generation, condensed.input
    assert generation.finish_reason == "deadline" and generation.headroom_s >= 0.02
    assert read.truncated and 0 < read.kept < read.tokens == 1002
    begun = read_texts(writing)
    assert text.lower().startswith(" ".join(begun[0].split()[:9]))
    written = [span for span in split_sentences(condensed.text)]
    assert 2 <= len(written) <= len(begun) < generation.pieces
    assert condensed.text.startswith(" ".join(begun[0].split()[:4]))
    assert read.kept == pytest.approx(len(written) * 30, abs=32)


@pytest.mark.parametrize("budget_s", [0.1, 0.12, 0.2, 0.4, 0.8, 1.6, 3.0, 6.0])
def test_some_pieces_well_rather_than_all_of_them_badly(budget_s: float) -> None:
    """A budget that allows any summary at all is spent on a usable one: some pieces well rather than all badly."""
    writing = engine()
    condensed = condense(writing, text_of(100), budget_s)
    assert condensed.text.endswith(".") and len(condensed.text.split()) >= 4
    assert condensed.generation.headroom_s >= 0


def test_no_time_for_a_piece_is_no_text() -> None:
    """Nothing is read or kept if the budget is too small for one piece."""
    writing = engine()
    condensed = condense(writing, text_of(100), 0.019)
    assert condensed.text == "" and writing.began == [] and condensed.generation.finish_reason == "deadline"
    assert condensed.input.kept == 0 < condensed.input.tokens and condensed.input.truncated


def test_no_time_for_the_last_round_leaves_the_pieces() -> None:
    """If only the last round does not fit, the pieces' summaries are the answer: `deadline`, but not truncated."""
    writing = engine(step_s=0.03)
    condensed = condense(writing, text_of(6), 0.42, num_beams=1)
    assert condensed.generation.pieces == 2 and len(writing.read) <= 3
    assert condensed.generation.finish_reason == "deadline" and not condensed.input.truncated
    assert len(split_sentences(condensed.text)) >= 1


def test_a_piece_of_which_nothing_is_written_is_passed_over() -> None:
    """A piece of which nothing is written is skipped, and the other pieces are still read."""
    heading = says_head(4)
    silent_of = text_tokens().encode(sentence(0))[1]
    calls: list[int] = []

    def saying(source: tuple[int, ...], written: tuple[int, ...]) -> int:
        calls.append(source[1])
        return 2 if source[1] == silent_of else heading(source, written)

    writing = engine(saying)
    condensed = condense(writing, text_of(9), num_beams=1)
    assert condensed.text and condensed.generation.finish_reason == "stop" and not condensed.input.truncated
    assert len(writing.read) == condensed.generation.pieces + 1
    silent = condense(engine(says([])), text_of(9), num_beams=1)
    assert silent.text == "" and silent.generation.finish_reason == "stop" and not silent.input.truncated


def test_a_checkpoint_that_writes_more_than_it_reads_comes_to_an_end() -> None:
    """A checkpoint whose summaries are no shorter than their texts is not given them again, so it comes to an end."""
    writing = engine(says([*words(120), STOP]))
    condensed = condense(writing, text_of(9), 6000.0, rules__max_new_tokens=150, num_beams=1)
    assert condensed.generation.finish_reason == "stop" and len(writing.read) == condensed.generation.pieces


def test_the_clients_most_tokens_hold_for_joined_pieces_too() -> None:
    """Joined summaries of pieces have no more tokens than the client asked for."""
    condensed = condense(engine(), text_of(100), 1.0, max_new_tokens=12, num_beams=1)
    assert condensed.generation.finish_reason == "deadline"
    assert 0 < condensed.generation.tokens <= 12
    assert len(text_tokens().encode(condensed.text)) - 2 <= 12


def test_the_prefix_stands_before_every_piece_and_fits() -> None:
    """T5's prefix is put before every piece, and pieces leave space for it in the window."""
    writing = engine()
    condense(writing, text_of(12), rules__prefix="dark people: ")
    prefix = tuple(text_tokens().encode("dark people:")[1:-1])
    assert all(ids[1:4] == prefix and len(ids) <= WINDOW for ids in writing.read)


def test_one_sentence_over_the_window_is_cut_and_that_is_said() -> None:
    """One sentence over the window is cut, and the report counts what is missing."""
    text = " ".join(WORDS * 6) + "."
    writing = engine()
    alone = condense(writing, text)
    assert alone.input.truncated and alone.input.kept == WINDOW < alone.input.tokens == 12 * 6 + 3
    assert len(writing.read) == 1 and alone.generation.pieces == 1
    among = condense(engine(), text + " " + text_of(6))
    assert among.input.truncated and among.input.kept == among.input.tokens - (75 - WINDOW)
    assert among.generation.finish_reason == "stop"


@pytest.mark.parametrize("text", ["\ud800" * 3000, ". " * 4000, "?!" * 2000, "word " * 4000, "\n\n.\n\n" * 1000])
def test_texts_of_no_sentences_are_no_error(text: str) -> None:
    """A text that cannot be cut into sentences still ends as a summary with a consistent report."""
    condensed = condense(engine(), text, 60.0, window=64)
    assert condensed.input.truncated == (condensed.input.kept < condensed.input.tokens)
    assert condensed.generation.headroom_s > 0


def test_twenty_thousand_words_take_linear_time() -> None:
    """The steps around the engine grow in proportion to the text: four times for four times the text."""

    def steps(sentences: int) -> int:
        def condensing() -> None:
            condensed = condense(engine(), text_of(sentences), 36_000.0, window=1024, num_beams=1)
            assert condensed.input.tokens == sentences * 10 + 2 and not condensed.input.truncated

        return steps_of(condensing)

    assert steps(2200) < 5 * steps(550)


def test_counting_stops_in_time() -> None:
    """If tokenising the whole text would take the budget, only its beginning is counted, read and summarised."""
    clock = FakeClock()

    class Slow:
        """A tokenizer that takes 1 ms for each sentence."""

        def __init__(self) -> None:
            self._tokens = text_tokens()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._tokens, name)

        def encode_batch(self, texts: list[str]) -> list[list[int]]:
            clock.advance(0.001 * len(texts))
            return self._tokens.encode_batch(texts)

    tokens: Any = Slow()
    writing = FakeSeq2Seq(clock, says_head(4))
    room = TextBudget(clock() + 1.0, 0.0, clock)
    condensed = through(
        AbstractiveSummarizer(writer_manifest(WINDOW, output_tokens=6), writing, tokens).begin(
            text_of(2000), SummarizeParameters(num_beams=1), room
        )
    )
    assert isinstance(condensed, WritingResult) and condensed.text
    assert condensed.generation.headroom_s >= 0 and condensed.input.truncated
    assert condensed.input.tokens == pytest.approx(20_002, rel=0.1)
