"""Cutting a long text into pieces that fit a window: on sentence borders, alike in length. Pure; knows no tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.sentences import Span


def pieces_of(sentences: Sequence[Span], tokens: Sequence[int], most_tokens: int) -> list[Span]:
    """Consecutive sentences joined into as few pieces as their tokens allow, none much shorter than the others.

    `tokens` counts those of each sentence, specials left out. A sentence that alone has more than `most_tokens` is a
    piece of its own, which the window will cut. Raises ValueError unless both are of one length.
    """
    pieces: list[Span] = []
    target = sum(tokens) / max(1, _fewest(tokens, most_tokens))
    begun: Span | None = None
    held = passed = 0.0
    for sentence, count in zip(sentences, tokens, strict=True):
        if begun is not None and (held + count > most_tokens or passed + count / 2 > target * (len(pieces) + 1)):
            pieces.append(begun)
            begun, held = None, 0.0
        begun = Span(begun.start if begun else sentence.start, sentence.end)
        held += count
        passed += count
    return [*pieces, begun] if begun else pieces


def _fewest(tokens: Sequence[int], most_tokens: int) -> int:
    """How many pieces there are where each is filled up before the next is begun."""
    pieces, held = 0, most_tokens
    for count in tokens:
        if held + count > most_tokens:
            pieces, held = pieces + 1, 0
        held += count
    return pieces
