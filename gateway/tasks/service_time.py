"""Service time: how long an engine takes for a request, by its variant's latency profile and by past answers.

Converts characters to tokens and tokens to seconds, and learns both from answers. Queueing, overhead and quantiles are
the forecaster's.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Protocol

from gateway.model.messages import Answer
from gateway.model.request import RequestShape

LEAST_SLOWDOWN, MOST_SLOWDOWN = 0.25, 8.0
"""Bounds of one observed slowdown. Set by hand."""


class Slowdown:
    """Running average of live service time divided by that of the profile, within bounds."""

    def __init__(self, weight: float) -> None:
        """`weight` is that of each new observation, from 0 to 1."""
        self.value = 1.0
        self._weight = weight

    def learn(self, took_s: float, profiled_s: float) -> None:
        """Learns from a run that took `took_s` seconds, where the profile says `profiled_s`."""
        if profiled_s > 0:
            seen = min(max(took_s / profiled_s, LEAST_SLOWDOWN), MOST_SLOWDOWN)
            self.value += self._weight * (seen - self.value)


SMOOTHING = 0.05
"""Weight of a new observation of tokens per character, or of an output's length. Set by hand."""

SLOWDOWN_WEIGHT = 0.1
"""Weight of a new observation of the slowdown. Set by hand."""

_FIRST_TOKENS_PER_CHARACTER = 0.27
"""Tokens per character before any answer. Set by hand."""

SPECIAL_TOKENS = 2
"""Special tokens that a tokenizer adds to a text."""


class ServiceTimeModel(Protocol):
    """Service times of one checkpoint. Callers report answers; it reads no clock."""

    sigma: float
    max_batch: int
    """Most inputs of different requests in one run of the engine; 1 if requests share none."""
    slowdown: Slowdown
    """Present service time divided by that of the profile."""

    def run_s(self, inputs: int, characters: int) -> float:
        """Median seconds of one run of `inputs` texts of `characters` each, done the cheapest way."""

    def service_times_s(self, shape: RequestShape, available_s: float, companions: int = 0) -> tuple[float, float]:
        """Median seconds of the request as done within `available_s` seconds, and as done the cheapest way.

        `companions` is the number of inputs of other requests, as long as these, in the same run.
        """

    def learn(self, shape: RequestShape, answer: Answer) -> None:
        """Learns from the answer to a request of this shape."""

    def forget(self) -> None:
        """Returns to the slowdown of the profiled machine, 1."""


class TokenRate:
    """Tokens per character, learnt from answers."""

    def __init__(self) -> None:
        self.per_character = _FIRST_TOKENS_PER_CHARACTER

    def tokens(self, characters: int) -> int:
        """The expected tokens of a text of `characters`, specials included."""
        return ceil(characters * self.per_character) + SPECIAL_TOKENS

    def learn(self, characters: Sequence[int], tokens: int) -> None:
        """Learns from the total tokens, specials included, of texts of these lengths."""
        of_text = tokens - SPECIAL_TOKENS * len(characters)
        if of_text > 0 and (total := sum(characters)) > 0:
            self.per_character += SMOOTHING * (of_text / total - self.per_character)
