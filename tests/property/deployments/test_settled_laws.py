"""Laws of text that is told while it is written: what was settled once is how the summary begins, whatever follows."""

from __future__ import annotations

from functools import cache

import numpy as np
from fake_engines import END, START, STOP, WORDS, FakeSeq2Seq, Saying, says, text_tokens, writer_manifest
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from small_seq2seq import byte_level_bpe, sentencepiece_unigram

from deployments.replica.summarize.abstractive import AMPLE, AbstractiveSummarizer
from deployments.replica.summarize.casing import GrowingSummary, restored
from deployments.replica.tokens import TextTokens
from deployments.replica.writing.beam_search import BeamSearch, SearchRules
from deployments.replica.writing.job import TextBudget, WritingResult, finished_text, settled_text, usable
from gateway.model.messages import FinishReason
from gateway.tasks.summarize import SummarizeParameters

TOKENS = text_tokens()
REASONS: tuple[FinishReason, ...] = ("stop", "length", "deadline")

pieces = st.sampled_from(
    [
        *("He met Dr.", "Smith", "e.g.", "version 1.", "5 is", "U.S.", "Yes!", "no", "well...", "?!", "one.", "The"),
        *(
            " ",
            " ",
            " ",
            " ",
            "\n",
            "\n\n",
            "\r\n",
            "- ",
            "# Head",
            "1. ",
            "a. ",
            '"',
            "'",
            "”",
            "(",
            ")",
            "]",
            "«",
            "»",
        ),
        *("。", "他走了", "」", "é", "\ufffd", "😀", "x" * 210, ".", "!", "…"),
    ]
)
written = st.lists(pieces, max_size=24).map("".join) | st.text(max_size=60)


@given(written, written, written)
def test_what_is_settled_stays_however_a_text_goes_on_and_ends(first: str, second: str, third: str) -> None:
    """The settled beginning of a text is one of all that is settled later, and of what is given in the end."""
    texts_ = [first, first + second, first + second + third]
    told = [settled_text(one) for one in texts_]
    assert told[1].startswith(told[0]) and told[2].startswith(told[1])
    for reason in REASONS:
        assert finished_text(texts_[2], reason).startswith(told[2]), reason


@given(st.lists(st.sampled_from(["The", "river", "rose", "closed"]), min_size=2, max_size=9))
def test_until_a_sentence_is_complete_all_words_but_the_last_are_settled(words: list[str]) -> None:
    """Of a first sentence every word is told as soon as the next one begins."""
    assert settled_text(" ".join(words)) == " ".join(words[:-1])


marks = st.sampled_from([*"+-/:'.,;!?()[]%_@&", "’", "s", "c", "x", "org", "user", "1", "5", "it", "is", "é"])
lowered = st.lists(st.tuples(marks, st.sampled_from(["", " ", " "])), max_size=20).map(
    lambda drawn: "".join(mark + space for mark, space in drawn)
)


@given(lowered, lowered, lowered)
def test_a_casing_that_is_settled_stays(summary: str, more: str, source: str) -> None:
    """What is restored of a summary's first words is how the restored summary begins."""
    grown = GrowingSummary(source.title())
    told = [grown.settled(summary), grown.settled(f"{summary} {more}")]
    assert told[1].startswith(told[0])
    assert restored(f"{summary} {more}", source.title()).startswith(told[1])


@cache
def tokenizer(kind: str) -> TextTokens:
    """A tokenizer of bytes, of SentencePiece's kind, or of whole words."""
    makers = {"bytes": byte_level_bpe, "pieces": sentencepiece_unigram}
    return TextTokens(makers[kind]()) if kind in makers else TOKENS


@given(st.sampled_from(["bytes", "pieces", "words"]), st.text(max_size=40), st.integers(0, 60))
def test_later_tokens_change_no_settled_text(kind: str, text: str, first: int) -> None:
    """The settled beginning of some tokens' text is one of the text of them all, even within a character."""
    tokens = tokenizer(kind)
    ids = tokens.encode(text)
    assert settled_text(tokens.decode(ids)).startswith(settled_text(tokens.decode(ids[:first])))


@given(
    seed=st.integers(0, 2**32 - 1),
    beams=st.integers(1, 5),
    most=st.integers(1, 12),
    early=st.sampled_from([True, False, "never"]),
    sharpness=st.sampled_from([0.3, 3.0]),
    forced_end=st.booleans(),
)
def test_settled_tokens_begin_every_later_best(
    seed: int, beams: int, most: int, early: bool, sharpness: float, forced_end: bool
) -> None:
    """At every step, and wherever the search stops, the best row begins with what was settled; greedily that is all."""
    chance = np.random.default_rng(seed)
    ends = {"eos_token_ids": (2,), "forced_eos_token_id": 2 if forced_end else None}
    search = BeamSearch(SearchRules(1, pad_token_id=0, max_new_tokens=most, beams=beams, early_stopping=early, **ends))  # type: ignore[arg-type]
    settled: tuple[int, ...] = ()
    while not search.done:
        rows = len(search.pending[0])
        search.feed((sharpness * chance.normal(size=(rows, 9))).astype(np.float32))
        assert search.settled()[: len(settled)] == settled
        settled = search.settled()
        assert search.best()[: len(settled)] == settled
        assert beams > 1 or settled == search.best()


sources = st.lists(st.integers(3, 14), max_size=60).map(
    lambda lengths: " ".join(" ".join(WORDS[:n] if n < 12 else WORDS).capitalize() + "." for n in lengths)
)
parameters_given = st.builds(
    SummarizeParameters,
    max_new_tokens=st.none() | st.integers(1, 24),
    num_beams=st.none() | st.integers(1, 5),
    early_stopping=st.none() | st.booleans(),
    truncation=st.sampled_from(["chunk", "longest_first"]),
)
sayings: st.SearchStrategy[Saying] = st.lists(st.integers(STOP, STOP + len(WORDS)), max_size=30).map(says)


@given(
    text=sources,
    saying=sayings,
    parameters=parameters_given,
    window=st.sampled_from([12, 30, 512]),
    budget_s=st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.3, 1.0, 600.0]),
    waits=st.lists(st.sampled_from([0.0, 0.0, 0.02, 0.1]), max_size=30),
    lower_cased=st.booleans(),
)
def test_a_summary_begins_as_it_was_told(
    text: str,
    saying: Saying,
    parameters: SummarizeParameters,
    window: int,
    budget_s: float,
    waits: list[float],
    lower_cased: bool,
) -> None:
    """After each step the settled text grows or stays; the summary begins with it, however it ends.

    With little time it is usable, too. Whether somebody reads along changes nothing of the summary.
    """
    outcomes = []
    for is_read in (True, False):
        clock, left = FakeClock(), list(waits)
        manifest = writer_manifest(window, lower_cased=lower_cased)
        writer = AbstractiveSummarizer(manifest, FakeSeq2Seq(clock, saying), TOKENS)
        job = writer.begin(text, parameters, TextBudget(clock() + budget_s, 0.0, clock))
        told = ""
        while not job.step():
            if is_read:
                assert job.settled().startswith(told)
                told = job.settled()
            clock.advance(left.pop() if left else 0.0)  # others have the engine
        outcome = job.outcome
        if isinstance(outcome, WritingResult) and told:
            assert outcome.text.startswith(told)
            assert usable(outcome.text, outcome.generation.finish_reason) or budget_s > AMPLE * 0.2
        outcomes.append(outcome)
    assert outcomes[0] == outcomes[1]


def test_a_greedy_summary_is_told_word_by_word() -> None:
    """With time enough, one beam settles each word of the first sentence at the step that begins the next."""
    clock = FakeClock()
    engine = FakeSeq2Seq(clock, says([5, 6, 7, 8, 9, STOP, END]))
    job = AbstractiveSummarizer(writer_manifest(), engine, TOKENS).begin(
        "The river rose over night.", SummarizeParameters(num_beams=1), TextBudget(clock() + 60, 0.0, clock)
    )
    told = []
    while not job.step():
        told.append(job.settled())
    assert [one.removeprefix("the river rose") for one in told] == [
        *("", "the", "the river", "", " bridge", " bridge"),
    ]
    assert START not in engine.read[0][1:]
