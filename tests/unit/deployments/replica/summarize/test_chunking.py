"""Cutting a text into pieces: whole sentences, all of them, each piece within the window."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.replica.sentences import SentenceSpan
from deployments.replica.summarize.chunking import pieces_of

MOST = 50


def spans(count: int) -> list[SentenceSpan]:
    """Sentences of nine characters with a space between."""
    return [SentenceSpan(10 * at, 10 * at + 9) for at in range(count)]


@given(st.lists(st.integers(0, 70), max_size=60))
def test_every_sentence_is_in_one_piece_and_pieces_fit(tokens: list[int]) -> None:
    """Pieces hold every sentence once and in order, fit the window unless of one sentence, and are few."""
    sentences = spans(len(tokens))
    pieces = pieces_of(sentences, tokens, MOST)
    starts = [piece.start for piece in pieces]
    assert starts == sorted(set(starts))
    inside = [[at for at, one in enumerate(sentences) if p.start <= one.start < one.end <= p.end] for p in pieces]
    assert [at for piece in inside for at in piece] == list(range(len(tokens)))
    assert all(sum(tokens[at] for at in piece) <= MOST or len(piece) == 1 for piece in inside)
    over = sum(count > MOST for count in tokens)
    assert len(pieces) <= 2 * math.ceil(sum(tokens) / MOST) + 2 * over + 1


@given(st.integers(2, 200), st.integers(1, 10))
def test_pieces_of_alike_sentences_are_alike(count: int, each: int) -> None:
    """Pieces of sentences of like length have like length: the last is no scrap."""
    pieces = pieces_of(spans(count), [each] * count, MOST)
    sizes = [(piece.end - piece.start + 1) // 10 * each for piece in pieces]
    assert max(sizes) - min(sizes) <= 2 * each and len(pieces) <= math.ceil(count / (MOST // each)) + 1


def test_what_fits_is_one_piece() -> None:
    """A text that fits the window is one piece, and an empty text has none."""
    assert pieces_of(spans(5), [10] * 5, MOST) == [SentenceSpan(0, 49)]
    assert pieces_of([], [], MOST) == []
    with pytest.raises(ValueError, match="shorter"):
        pieces_of(spans(2), [1], MOST)
