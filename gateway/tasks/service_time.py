"""Service time: how long an engine takes for a request, by its variant's latency profile and by past answers.

Converts tokens to seconds, and learns from answers how fast the machine is at present. Queueing, overhead and quantiles
are the forecaster's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from gateway.model.messages import Answer, Parameters

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
"""Weight of a new observation of an output's length. Set by hand."""

SLOWDOWN_WEIGHT = 0.1
"""Weight of a new observation of the slowdown. Set by hand."""


@dataclass(frozen=True, slots=True)
class StepSharing:
    """How texts of several requests share steps: what one takes before it does, and how much slower steps become.

    `reading_s` has the seconds for which a text of so many tokens holds up all others when it joins; `pace` says how
    many times as long a step of so many texts takes as one of one.
    """

    reading_s: Callable[[int], float]
    pace: Callable[[int], float]


@runtime_checkable
class TellsEarly(Protocol):
    """Service times of a checkpoint whose answers are told while they are written."""

    def first_token_s(self, tokens: Sequence[int], parameters: Parameters, companions: int = 0) -> float:
        """Median seconds until the first text of an answer can be told, with nothing queued before it.

        `tokens` are those of the request's texts; the first that is read is told first. `companions` step with it.
        """


class ServiceTimeModel(Protocol):
    """Service times of one checkpoint. Callers report answers; it reads no clock."""

    sigma: float
    max_batch: int
    """Most inputs of different requests in one run of the engine; 1 if requests share none."""
    joins: StepSharing | None
    """How texts share steps, where a request may join those under way; None if texts share runs or nothing."""
    slowdown: Slowdown
    """Present service time divided by that of the profile."""

    def run_s(self, inputs: int, tokens: int) -> float:
        """Median seconds of a batch of `inputs` texts of `tokens` tokens each, done the cheapest way."""

    def service_times_s(
        self, tokens: Sequence[int], parameters: Parameters, available_s: float, companions: int = 0
    ) -> tuple[float, float]:
        """Median seconds of a request as done within `available_s` seconds, and as done the cheapest way.

        `tokens` are those of its texts, by the checkpoint's own tokenizer. `companions` is the number of inputs of
        other requests, as long as these, in the same batch.
        """

    def learn(self, tokens: Sequence[int], parameters: Parameters, answer: Answer) -> None:
        """Learns from the answer to a request with these tokens."""

    def forget(self) -> None:
        """Returns to the slowdown of the profiled machine, 1."""
