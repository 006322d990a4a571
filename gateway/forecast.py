"""The forecast: how long each checkpoint would take for this request, as quantiles that live answers keep honest.

A forecast is queueing delay (from the load book) plus service time (from the latency profile) plus overhead
(measured). How far answers strayed from it, in units of a scale that grows with the work, gives its quantiles: a
locally weighted split-conformal interval (Lei et al., "Distribution-Free Predictive Inference for Regression",
JASA 2018, section 5.2) over a sliding window, so that drift is followed. Errors met behind queued work and errors
met without any are kept apart (Mondrian conformal prediction: Vovk et al., "Algorithmic Learning in a Random World",
2005, section 4.5), so that an overload is not held against the idle gateway after it. Until a checkpoint's window has
filled, the errors of all checkpoints together stand in, and until there are enough of those the profile's spread.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

from gateway.profile import LatencyProfile

WINDOW = 256
ENOUGH = 40
MAX_AGE_S = 60.0
_PRIOR_WIDENING = 2.0
_LEAST_SIGMA = 0.10
_SMOOTHING = 0.05
_FIRST_OVERHEAD_S = 0.0015
_LEAST_OVERHEAD_S = 0.0001
_FIRST_TOKENS_PER_CHARACTER = 0.27
_SPECIAL_TOKENS = 2
_BATCH = 8


@dataclass(frozen=True, slots=True)
class Forecast:
    """Predicted latency of one request on one checkpoint, in seconds.

    `latency_s` is the median; `quantile_s` is not exceeded with the percentile that was asked for, and
    `idle_quantile_s` likewise with nothing queued.
    """

    queueing_delay_s: float
    service_time_s: float
    latency_s: float
    quantile_s: float
    idle_quantile_s: float


class StrayWindow:
    """The most recent standardised errors of one checkpoint's forecasts, sorted for their quantiles."""

    def __init__(self, capacity: int = WINDOW, max_age_s: float = MAX_AGE_S) -> None:
        self._capacity = capacity
        self._max_age_s = max_age_s
        self._arrivals: deque[tuple[float, float]] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, stray: float, now_s: float) -> None:
        """Takes one error; the oldest leaves when the window is full."""
        self._arrivals.append((now_s, stray))
        insort(self._sorted, stray)
        if len(self._arrivals) > self._capacity:
            self._forget()

    def quantile(self, share: float, now_s: float, prior: float) -> float:
        """The conformal quantile of the errors not older than the window's age; `prior` while there are too few.

        Where there are enough, but not for so large a share, it is the larger of the prior and the largest error.
        Old errors are forgotten because a checkpoint that was slow once is then chosen less and could otherwise
        never show that it has recovered.
        """
        while self._arrivals and now_s - self._arrivals[0][0] > self._max_age_s:
            self._forget()
        count = len(self._sorted)
        if count < ENOUGH:
            return prior
        rank = math.ceil((count + 1) * share)
        return self._sorted[rank - 1] if rank <= count else max(self._sorted[-1], prior)

    def _forget(self) -> None:
        _, stray = self._arrivals.popleft()
        del self._sorted[bisect_left(self._sorted, stray)]


class Surroundings:
    """What all checkpoints of one gateway meet alike: its overhead, and how far all their forecasts strayed together.

    A checkpoint that is seldom chosen has little of its own to go by, and what it once met would stay true for it
    for ever; what the others meet at this moment is the better guess.
    """

    def __init__(self) -> None:
        self.overhead_s = _FIRST_OVERHEAD_S
        self.strays_idle = StrayWindow()
        self.strays_queued = StrayWindow()

    def learn_overhead(self, overhead_s: float) -> None:
        """Takes the overhead of one answer, in seconds; one freak does not spoil it."""
        most_s = 10 * max(self.overhead_s, _LEAST_OVERHEAD_S)
        self.overhead_s += _SMOOTHING * (min(max(overhead_s, 0.0), most_s) - self.overhead_s)


class Forecaster:
    """Forecasts one checkpoint and learns from its answers. It is told the time; it reads no clock."""

    def __init__(self, profile: LatencyProfile, window_tokens: int, surroundings: Surroundings | None = None) -> None:
        """`window_tokens` is the most that the checkpoint takes of one input."""
        self._profile = profile
        self._window_tokens = window_tokens
        self._sigma = max(profile.sigma, _LEAST_SIGMA)
        self._surroundings = surroundings or Surroundings()
        self._tokens_per_character = _FIRST_TOKENS_PER_CHARACTER
        self._strays_idle = StrayWindow()
        self._strays_queued = StrayWindow()

    def tokens(self, characters: int) -> int:
        """The tokens to expect of a text of so many characters, specials included, cut to the window."""
        return min(self._window_tokens, math.ceil(characters * self._tokens_per_character) + _SPECIAL_TOKENS)

    def service_time_s(self, characters: Sequence[int]) -> float:
        """The median service time of inputs of these many characters, batched by alike lengths."""
        if len(characters) == 1:
            return self._profile.median_s(1, self.tokens(characters[0]))
        lengths = sorted(map(self.tokens, characters))
        batches = (lengths[at : at + _BATCH] for at in range(0, len(lengths), _BATCH))
        return sum(self._profile.median_s(len(batch), batch[-1]) for batch in batches)

    def forecast(self, characters: Sequence[int], queueing_delay_s: float, percentile: float, now_s: float) -> Forecast:
        """The forecast for inputs of these many characters behind so much queued work.

        `percentile` is in percent, as the client gives it.
        """
        service_time_s = self.service_time_s(characters)
        share, prior = percentile / 100, _PRIOR_WIDENING * _standard_normal(percentile)
        around = self._surroundings
        idle_s = service_time_s + around.overhead_s
        idle_stray = self._strays_idle.quantile(share, now_s, around.strays_idle.quantile(share, now_s, prior))
        idle_quantile_s = max(idle_s + idle_stray * self._scale_s(idle_s), service_time_s)
        if queueing_delay_s <= 0:
            return Forecast(0.0, service_time_s, idle_s, idle_quantile_s, idle_quantile_s)
        latency_s = queueing_delay_s + idle_s
        stray = self._strays_queued.quantile(share, now_s, around.strays_queued.quantile(share, now_s, prior))
        quantile_s = latency_s + stray * self._scale_s(latency_s)
        return Forecast(queueing_delay_s, service_time_s, latency_s, max(quantile_s, idle_quantile_s), idle_quantile_s)

    def learn(self, forecast: Forecast, latency_s: float, overhead_s: float, now_s: float) -> None:
        """Takes the latency that was seen for what was forecast, and how much of it was overhead, in seconds."""
        stray = (latency_s - forecast.latency_s) / self._scale_s(forecast.latency_s)
        if forecast.queueing_delay_s > 0:
            self._strays_queued.add(stray, now_s)
            self._surroundings.strays_queued.add(stray, now_s)
        else:
            self._strays_idle.add(stray, now_s)
            self._surroundings.strays_idle.add(stray, now_s)
        self._surroundings.learn_overhead(overhead_s)

    def learn_tokens(self, characters: Sequence[int], tokens: int) -> None:
        """Takes how many tokens, specials included, texts of these many characters had together."""
        of_text = tokens - _SPECIAL_TOKENS * len(characters)
        if of_text > 0 and (total := sum(characters)) > 0:
            self._tokens_per_character += _SMOOTHING * (of_text / total - self._tokens_per_character)

    def _scale_s(self, latency_s: float) -> float:
        return self._sigma * latency_s + 0.25 * self._surroundings.overhead_s


@lru_cache(maxsize=1024)
def _standard_normal(percentile: float) -> float:
    return NormalDist().inv_cdf(percentile / 100)
