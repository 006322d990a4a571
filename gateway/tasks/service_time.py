"""Service time: how long an engine takes for a request, by its variant's latency profile and by past answers.

Converts tokens to seconds, and learns from answers how fast the machine is at present. Queueing, overhead and quantiles
are the forecaster's.

A run of the engine pads every input to the longest, so that two runs of like lengths can take less time than one of
unlike lengths. `runs_of` divides a batch into the parts that take the least time together: the replica runs its batches
so, and `BatchedModel` forecasts them so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from gateway.model.messages import Answer, Parameters
from gateway.model.profile import LatencyProfile

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


LARGEST_RUN = 16
"""Most inputs in one run of the engine."""

MOST_PADDED_TOKENS = 2_048
"""Most tokens in one run of several inputs, padding included, so that no run holds the engine for long."""


class MedianTimes(Protocol):
    """The median service times of a latency profile."""

    def median_s(self, batch: int, tokens: int) -> float:
        """The median service time in seconds of one run of `batch` inputs padded to `tokens` tokens."""


@dataclass(frozen=True)
class RememberedMedians:
    """A latency profile that interpolates each (batch, tokens) once and remembers it, without limit."""

    profile: MedianTimes
    _known: dict[tuple[int, int], float] = field(default_factory=dict, repr=False, compare=False)

    def median_s(self, batch: int, tokens: int) -> float:
        """The profile's median in seconds, computed once."""
        try:
            return self._known[batch, tokens]
        except KeyError:
            return self._known.setdefault((batch, tokens), self.profile.median_s(batch, tokens))


def runs_of(lengths: Sequence[int], median_s: Callable[[int, int], float]) -> list[list[int]]:
    """Divides inputs of these lengths, in tokens, into the runs that take the least time; gives their places.

    Runs are of neighbours in order of length, of at most `LARGEST_RUN` inputs and `MOST_PADDED_TOKENS` tokens, unless
    one input alone has more. Of equally fast divisions it takes one whose last run is the largest.
    """
    if len(lengths) == 1:
        return [[0]]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    least: list[tuple[float, int]] = [(0.0, 0)]  # of the first inputs in order: seconds, and where the last run begins
    for end in range(1, len(order) + 1):
        tokens = lengths[order[end - 1]]
        most = max(1, min(end, LARGEST_RUN, MOST_PADDED_TOKENS // max(tokens, 1)))
        least.append(min((least[end - size][0] + median_s(size, tokens), end - size) for size in range(1, most + 1)))
    runs, end = [], len(order)
    while end:
        begin = least[end][1]
        runs.append(order[begin:end])
        end = begin
    return runs[::-1]


class BatchedModel:
    """Service times of what answers in one pass: inputs are cut to the window, and run as `runs_of` divides them."""

    max_batch = LARGEST_RUN
    joins: StepSharing | None = None

    def __init__(self, profile: LatencyProfile, window_tokens: int) -> None:
        """`window_tokens` is the most that the checkpoint takes of one input."""
        self.sigma = profile.sigma
        self._medians = RememberedMedians(profile)
        self._window_tokens = window_tokens
        self.slowdown = Slowdown(SLOWDOWN_WEIGHT)
        self._known: list[list[float]] = []

    def run_s(self, inputs: int, tokens: int) -> float:
        """Median seconds of a batch of equally long inputs."""
        return self.slowdown.value * self._alike_s(inputs, min(tokens, self._window_tokens))

    def service_times_s(
        self, tokens: Sequence[int], parameters: Parameters, available_s: float, companions: int = 0
    ) -> tuple[float, float]:
        """Median seconds within the available time, and done the cheapest way: equal, for there is one way to answer.

        A single text, the common case, is looked up with few calls. Companions are as long as the longest text.
        """
        window = self._window_tokens
        if len(tokens) == 1:
            own = tokens[0] if tokens[0] < window else window
            service_time_s = self.slowdown.value * self._alike_s(1 + companions, own)
        else:
            lengths = [min(one, window) for one in tokens]
            service_time_s = self.slowdown.value * self._unlike_s([*lengths, *[max(lengths)] * companions])
        return service_time_s, service_time_s

    def learn(self, tokens: Sequence[int], parameters: Parameters, answer: Answer) -> None:
        """Learns the slowdown, from single inputs, since only their run is known."""
        batch = answer.timings.batch_size
        if len(tokens) == 1 and batch > 0 and 0 < answer.input.kept <= self._window_tokens:
            profiled_s = self._medians.median_s(batch, answer.input.kept)
            self.slowdown.learn(answer.timings.service_time_s, profiled_s)

    def forget(self) -> None:
        """Resets the slowdown to 1."""
        self.slowdown = Slowdown(SLOWDOWN_WEIGHT)

    def _alike_s(self, inputs: int, tokens: int) -> float:
        """Median seconds of equally long inputs, cached by number and length; 0 marks what is not looked up yet."""
        while len(self._known) < inputs:
            self._known.append([0.0] * (self._window_tokens + 1))
        of_number = self._known[inputs - 1]
        if not of_number[tokens]:
            of_number[tokens] = self._unlike_s([tokens] * inputs)
        return of_number[tokens]

    def _unlike_s(self, lengths: Sequence[int]) -> float:
        """Median seconds of inputs of these lengths, in the runs that the replica divides them into."""
        median_s = self._medians.median_s
        return sum(median_s(len(run), lengths[run[-1]]) for run in runs_of(lengths, median_s))
