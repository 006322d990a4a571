"""Service time: how long an engine takes for a request, by the latency profile of its variant and what answers taught.

It turns characters into tokens and tokens into seconds, and learns both conversions from answers. Queueing, overhead
and quantiles are the forecaster's.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Protocol

from gateway.model.messages import Answer
from gateway.model.request import RequestShape

LEAST_SLOWDOWN, MOST_SLOWDOWN = 0.25, 8.0


class Slowdown:
    """A running average of what was seen against what the profile said, within bounds."""

    def __init__(self, weight: float) -> None:
        """`weight` is that of each new observation, from 0 to 1."""
        self.value = 1.0
        self._weight = weight

    def learn(self, took_s: float, profiled_s: float) -> None:
        """Takes what a run took that takes `profiled_s` by the profile alone."""
        if profiled_s > 0:
            seen = min(max(took_s / profiled_s, LEAST_SLOWDOWN), MOST_SLOWDOWN)
            self.value += self._weight * (seen - self.value)


SMOOTHING = 0.05
SLOWDOWN_WEIGHT = 0.1
_FIRST_TOKENS_PER_CHARACTER = 0.27
SPECIAL_TOKENS = 2


class ServiceTimeModel(Protocol):
    """Service times of one checkpoint. It is told what answers took and reads no clock."""

    sigma: float
    max_batch: int
    """Inputs of different requests that one run of the engine may take; 1 where none share a run."""
    slowdown: Slowdown
    """How much longer than by the profile its runs take at this moment."""

    def run_s(self, inputs: int, characters: int) -> float:
        """Median seconds of one run of so many inputs of so many characters each, done at the least."""

    def service_times_s(self, asked: RequestShape, room_s: float, companions: int = 0) -> tuple[float, float]:
        """Median seconds as it would be done with `room_s` left of the budget, and as it is done at the least.

        `companions` is how many inputs of others, as long as these, are run together with them.
        """

    def learn(self, asked: RequestShape, answer: Answer) -> None:
        """Takes what became of a request."""

    def forget(self) -> None:
        """Takes the machine to be as quick again as it was when it was profiled."""


class TokenRate:
    """How many tokens texts have for their characters, learnt from answers."""

    def __init__(self) -> None:
        self.per_character = _FIRST_TOKENS_PER_CHARACTER

    def tokens(self, characters: int) -> int:
        """The tokens to expect of a text of so many characters, specials included."""
        return ceil(characters * self.per_character) + SPECIAL_TOKENS

    def learn(self, characters: Sequence[int], tokens: int) -> None:
        """Takes how many tokens, specials included, texts of these many characters had together."""
        of_text = tokens - SPECIAL_TOKENS * len(characters)
        if of_text > 0 and (total := sum(characters)) > 0:
            self.per_character += SMOOTHING * (of_text / total - self.per_character)
