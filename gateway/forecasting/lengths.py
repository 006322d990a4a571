"""Lengths of texts in tokens, counted before the decision, so that no text is judged by its characters.

Knows no tokenizer: a counter is a function that is handed in. Counting is bounded, since it runs on the event loop: a
long text is counted by samples. Where they lie is drawn anew for each text, so that no text can be made whose samples
are unlike the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from random import Random
from typing import TypeAlias

Counter: TypeAlias = Callable[[str], int]
"""Counts the tokens of a text, specials included."""

COUNTED = 3_000
"""Most characters of one request that are counted: under 1 ms (docs/performance.md)."""

SAMPLES, FEWEST_SAMPLES = 12, 3
"""Most and fewest samples of a long text, each at a place by chance in its own part of it. Set by hand."""

USUAL_SAMPLE = 100
"""Characters of a sample where a text has fewer than `SAMPLES`: what a cut word adds is then little. Set by hand."""

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

    def __init__(self, counters: Sequence[Counter], chance: Random) -> None:
        """Takes one counter for each tokenizer. `chance` draws the places of samples."""
        self._counters = [(counter, counter("")) for counter in counters]
        self._chance = chance

    def take(self, place: int, counter: Counter) -> None:
        """Counts by this counter from now on, in place of another."""
        self._counters[place] = (counter, counter(""))

    def of(self, texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """The tokens of each text, for each tokenizer. Exact for up to `COUNTED` characters in all, else estimated."""
        share = _share([len(text) for text in texts])
        read = [None if len(text) <= share else samples_of(text, share, self._chance) for text in texts]
        return tuple(
            [
                tuple([_counted(text, samples, counter, own) for text, samples in zip(texts, read, strict=True)])
                for counter, own in self._counters
            ]
        )


def _share(lengths: Sequence[int]) -> int:
    """Most characters of each text that are counted: short texts whole, long ones by an equal part of what is left.

    So labels beside a long text take little of its part.
    """
    if len(lengths) == 1:
        return COUNTED
    left, texts = COUNTED, len(lengths)
    for length in sorted(lengths):
        if length * texts > left:
            return max(left // texts, FEWEST_SAMPLES * SHORTEST_SAMPLE)
        left -= length
        texts -= 1
    return COUNTED


def samples_of(text: str, characters: int, chance: Random) -> list[str]:
    """Samples of a longer text, of that many characters in all: one by chance in each of as many equal parts."""
    number = min(max(characters // USUAL_SAMPLE, FEWEST_SAMPLES), SAMPLES)
    size, part = characters // number, len(text) / number
    starts = [int(at * part + chance.random() * (part - size)) for at in range(number)]
    return [text[start : start + size] for start in starts]


def is_sampled(texts: Sequence[str]) -> bool:
    """True if the tokens of these texts are estimated by samples, and not counted."""
    lengths = [len(text) for text in texts]
    return sum(lengths) > COUNTED and max(lengths) > _share(lengths)


def _counted(text: str, samples: Sequence[str] | None, counter: Counter, own: int) -> int:
    """The tokens of a text, estimated where there are samples. `own` are a text's specials."""
    if samples is None:
        return counter(text)
    counted = sum(counter(sample) - own for sample in samples)
    return ceil(counted * len(text) / sum(map(len, samples))) + own
