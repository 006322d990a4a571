"""Lengths of texts in tokens, counted before the decision, so that no text is judged by its characters.

Knows no tokenizer: a counter is a function that is handed in. Counting is bounded, since it runs on the event loop: a
long text is counted by samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import TypeAlias

Counter: TypeAlias = Callable[[str], int]
"""Counts the tokens of a text, specials included."""

COUNTED = 3_000
"""Most characters of one request that are counted: under 1 ms (docs/performance.md)."""

SAMPLES = 3
"""Places in a long text where a sample is counted: its start, middle and end."""

SHORTEST_SAMPLE = 16
"""Fewest characters of a sample. A list of many long texts is counted beyond `COUNTED` rather than with less."""

TOKENS_PER_CHARACTER = 0.27
"""Tokens per character of English, used where the gateway has no tokenizer of a checkpoint. Set by hand."""

SPECIAL_TOKENS = 2
"""Special tokens that most tokenizers add to a text."""


def estimated(text: str) -> int:
    """Estimates the tokens of a text by its characters."""
    return ceil(len(text) * TOKENS_PER_CHARACTER) + SPECIAL_TOKENS


class Lengths:
    """Counts the tokens of a request's texts by each tokenizer of a task."""

    def __init__(self, counters: Sequence[Counter]) -> None:
        """Takes one counter for each tokenizer."""
        self._counters = [(counter, counter("")) for counter in counters]

    def take(self, place: int, counter: Counter) -> None:
        """Counts by this counter from now on, in place of another."""
        self._counters[place] = (counter, counter(""))

    def of(self, texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """The tokens of each text, for each tokenizer. Exact for up to `COUNTED` characters in all, else estimated."""
        share = COUNTED if len(texts) == 1 else _share([len(text) for text in texts])
        return tuple(
            [
                tuple([counter(text) if len(text) <= share else _sampled(text, share, counter, own) for text in texts])
                for counter, own in self._counters
            ]
        )


def _share(lengths: Sequence[int]) -> int:
    """Most characters of each text that are counted: short texts whole, long ones by an equal part of what is left.

    So labels beside a long text take little of its part.
    """
    left, texts = COUNTED, len(lengths)
    for length in sorted(lengths):
        if length * texts > left:
            return max(left // texts, SAMPLES * SHORTEST_SAMPLE)
        left -= length
        texts -= 1
    return COUNTED


def _sampled(text: str, characters: int, counter: Counter, own: int) -> int:
    """Estimates the tokens of a long text by samples of that many characters in all. `own` are a text's specials."""
    size = characters // SAMPLES
    starts = [(len(text) - size) * at // (SAMPLES - 1) for at in range(SAMPLES)]
    counted = sum(counter(text[start : start + size]) - own for start in starts)
    return ceil(counted * len(text) / (SAMPLES * size)) + own
