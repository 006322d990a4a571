"""Splitting into sentences is total, lossless and linear, and ends where a reader would end."""

from __future__ import annotations

from typing import Any

import pytest
import sentencex
from counted_steps import steps_of
from hypothesis import given
from hypothesis import strategies as st
from sentencex import get_sentence_boundaries

from deployments.replica.sentences import (
    _QUOTES,
    CLOSERS,
    MAX_CHARACTERS,
    MAX_QUOTES,
    TERMINATORS,
    SentenceSpan,
    split_sentences,
    whole_sentences,
)

pieces = st.sampled_from(
    [
        "He met Dr. Smith.",
        " ",
        "\n",
        "\n\n",
        "\r\n",
        "- ",
        "# Head",
        "1. ",
        "Yes!",
        '"No."',
        "é",
        "。",
        "\ud800",
        "(a. b)",
    ]
)
texts = st.one_of(st.text(max_size=200), st.lists(pieces, max_size=40).map("".join))


def sentences(text: str) -> list[str]:
    """The text of each sentence."""
    return [text[span.start : span.end] for span in split_sentences(text)]


@given(texts)
def test_every_character_but_whitespace_is_in_one_sentence(text: str) -> None:
    """Every character but whitespace is in exactly one sentence; spans ascend, and none is empty, padded or too long.

    Blank is whitespace, or what no encoder can read: a lone surrogate, a NUL.
    """
    at = 0
    for span in split_sentences(text):
        assert at <= span.start < span.end <= span.start + MAX_CHARACTERS
        assert not _readable(text[at : span.start])
        inside = _blanked(text[span.start : span.end])
        assert inside == inside.strip()
        at = span.end
    assert not _readable(text[at:])


def _blanked(text: str) -> str:
    return "".join(" " if char in "\r\x00" or "\ud800" <= char <= "\udfff" else char for char in text)


def _readable(text: str) -> str:
    return _blanked(text).strip()


@given(texts)
def test_splitting_is_a_function(text: str) -> None:
    """Splitting the text again gives equal sentences."""
    assert split_sentences(text) == split_sentences(text)


@given(texts)
def test_whole_sentences_are_a_beginning_of_the_text(text: str) -> None:
    """Whole sentences of a text are a prefix of it that ends as a sentence does, and that stays whole alone."""
    whole = whole_sentences(text)
    assert text.startswith(whole)
    assert not whole or whole.rstrip(CLOSERS)[-1] in TERMINATORS
    assert whole_sentences(whole) == whole


@given(texts, texts)
def test_an_end_with_a_word_after_it_is_settled(text: str, more: str) -> None:
    """An end that is followed by a whole word is one of every text that goes on from there."""
    settled = whole_sentences(text, settled=True)
    assert whole_sentences(text).startswith(settled)
    assert whole_sentences(text + more, settled=True).startswith(settled)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Smith came at 5 p.m. on Monday. Then he left!", ["Dr. Smith came at 5 p.m. on Monday.", "Then he left!"]),
        ('"It is fine," he said. So?', ['"It is fine," he said.', "So?"]),
        ("It costs $3.50, e.g. here (see Fig. 2). 😀 Yes.", ["It costs $3.50, e.g. here (see Fig. 2).", "😀 Yes."]),
        ("# Title\nText that\nwraps. More", ["# Title", "Text that\nwraps.", "More"]),
        ("Price list\r\nOne costs 5.\r\n\r\nEnd", ["Price list", "One costs 5.", "End"]),
        ("- one\n- two\n1. Open it. Look.\n2. Close it.", ["- one", "- two", "1. Open it.", "Look.", "2. Close it."]),
        ("  \n ", []),
        ("", []),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, expected: list[str]) -> None:
    """Headings, list items and blank lines end a sentence; abbreviations, numbers and wrapped lines do not."""
    assert sentences(text) == expected


def test_a_text_without_punctuation_is_cut_between_words() -> None:
    """A text without punctuation is cut between words, and an endless word is cut where it must be."""
    parts = sentences("word " * 1_000)
    assert set(" ".join(parts).split()) == {"word"} and max(map(len, parts)) <= MAX_CHARACTERS
    assert len(" ".join(parts).split()) == 1_000
    assert [len(part) for part in sentences("x" * 2_500)] == [1_000, 1_000, 500]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two is cut of", "One."),
        ("He met Dr. Smith. He then met Dr.", "He met Dr. Smith."),
        ('He said "No." And th', 'He said "No."'),
        ("All of it.", "All of it."),
        ("Nothing is", ""),
        ("Heading\n\nNothing is", ""),
        ("", ""),
    ],
)
def test_cut_text_ends_with_its_last_whole_sentence(text: str, expected: str) -> None:
    """A cut text ends with its last whole sentence: a heading, half a sentence or a cut at an abbreviation is none."""
    assert whole_sentences(text) == expected


@pytest.mark.parametrize(
    "unit", ["a", "word ", ".", '"', "(", "\n", " ", "A. ", "a\n\n", "'«\"", '1»。"\r\n', "\"'\u0301é(", "?!", "- \n"]
)
def test_hostile_text_costs_no_more_than_its_length(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hostile text costs no more than its length: ten times as much takes ten times the steps.

    `sentencex` is quadratic in a window's quotes alone, so that what is bounded there is bounded in time.
    """
    windows: list[str] = []

    def noted(language: str, window: str) -> Any:
        windows.append(window)
        return get_sentence_boundaries(language, window)

    monkeypatch.setattr(sentencex, "get_sentence_boundaries", noted)
    small, large = (unit * (length // len(unit)) for length in (10_000, 100_000))
    assert steps_of(lambda: split_sentences(large)) < 11 * steps_of(lambda: split_sentences(small))
    assert all(len(one) <= MAX_CHARACTERS and len(_QUOTES.findall(one)) <= MAX_QUOTES for one in windows)
    assert sum(map(len, windows)) <= 2 * (len(small) + len(large))


def test_a_span_is_a_value() -> None:
    """Spans with equal offsets are equal, and a span cannot be changed."""
    assert SentenceSpan(1, 2) == SentenceSpan(1, 2) and len({SentenceSpan(1, 2), SentenceSpan(1, 2)}) == 1
    with pytest.raises(AttributeError):
        SentenceSpan(1, 2).start = 0  # type: ignore[misc]
