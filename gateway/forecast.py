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
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

from gateway.costs import Asked, Cost
from gateway.load import Ahead
from gateway.work import Answer

WINDOW = 256
ENOUGH = 40
MAX_AGE_S = 60.0
_PRIOR_WIDENING = 2.0
_LEAST_SIGMA = 0.10
_SMOOTHING = 0.05
_FIRST_OVERHEAD_S = 0.0015
_LEAST_OVERHEAD_S = 0.0001


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

    def __init__(self, cost: Cost, surroundings: Surroundings | None = None) -> None:
        self.cost = cost
        self._sigma = max(cost.sigma, _LEAST_SIGMA)
        self._surroundings = surroundings or Surroundings()
        self._strays_idle = StrayWindow()
        self._strays_queued = StrayWindow()

    def forecast(self, asked: Asked, ahead: Ahead, percentile: float, now_s: float, remaining_s: float) -> Forecast:
        """The forecast of a request behind so much work, done as well as what remains of its budget has room for.

        Where that leaves no room for its quantile, it is forecast as done at the least. `percentile` is in percent,
        as the client gives it.
        """
        share, prior = percentile / 100, _PRIOR_WIDENING * _standard_normal(percentile)
        around = self._surroundings
        idle_stray = self._strays_idle.quantile(share, now_s, around.strays_idle.quantile(share, now_s, prior))
        waiting_s = ahead.backlog_s if ahead.sharing is None else 0.0
        fully_s, least_s = self.cost.service_times_s(asked, remaining_s - around.overhead_s - waiting_s)
        idle_least_s = self._idle_quantile_s(least_s, idle_stray)
        queued_stray = None
        if ahead.backlog_s > 0:
            together = around.strays_queued.quantile(share, now_s, prior)
            queued_stray = self._strays_queued.quantile(share, now_s, together)
        if fully_s > least_s:
            fully = self._behind(ahead, fully_s, self._idle_quantile_s(fully_s, idle_stray), queued_stray, idle_least_s)
            if fully.quantile_s <= remaining_s:
                return fully
        return self._behind(ahead, least_s, idle_least_s, queued_stray, idle_least_s)

    def learn(self, forecast: Forecast, asked: Asked, answer: Answer, latency_s: float, now_s: float) -> None:
        """Takes the latency that was seen for what was forecast, in seconds from the decision to the answer.

        An answer that its deadline cut says only that it would have taken longer: it counts as no less than the
        quantile. Else a checkpoint that is cut every time would seem as quick as its budgets are short.
        """
        timings = answer.timings
        overhead_s = latency_s - timings.queueing_delay_s - timings.service_time_s
        if any(one.finish_reason == "deadline" for one in answer.generation):
            latency_s = max(latency_s, forecast.quantile_s)
        self.learn_latency(forecast, latency_s, overhead_s, now_s)
        self.cost.learn(asked, answer)

    def learn_latency(self, forecast: Forecast, latency_s: float, overhead_s: float, now_s: float) -> None:
        """Takes how far the forecast strayed, and how much of the latency was overhead, in seconds."""
        stray = (latency_s - forecast.latency_s) / self._scale_s(forecast.latency_s)
        if forecast.queueing_delay_s > 0:
            self._strays_queued.add(stray, now_s)
            self._surroundings.strays_queued.add(stray, now_s)
        else:
            self._strays_idle.add(stray, now_s)
            self._surroundings.strays_idle.add(stray, now_s)
        self._surroundings.learn_overhead(overhead_s)

    def _idle_quantile_s(self, service_time_s: float, stray: float) -> float:
        """The quantile with nothing queued, by the quantile of the errors met so; never below the run itself."""
        idle_s = service_time_s + self._surroundings.overhead_s
        return max(idle_s + stray * self._scale_s(idle_s), service_time_s)

    def _behind(
        self, ahead: Ahead, service_time_s: float, idle_s: float, stray: float | None, idle_least_s: float
    ) -> Forecast:
        """The forecast of one way to do it, whose quantile with nothing queued is `idle_s`, behind what is queued."""
        overhead_s = self._surroundings.overhead_s
        queueing_delay_s = 0.0 if stray is None else ahead.delay_s(service_time_s)
        latency_s = queueing_delay_s + service_time_s + overhead_s
        quantile_s = idle_s
        if stray is not None and queueing_delay_s > 0:
            quantile_s = max(latency_s + stray * self._scale_s(latency_s), idle_s)
        return Forecast(queueing_delay_s, service_time_s, latency_s, quantile_s, idle_least_s)

    def _scale_s(self, latency_s: float) -> float:
        return self._sigma * latency_s + 0.25 * self._surroundings.overhead_s


@lru_cache(maxsize=1024)
def _standard_normal(percentile: float) -> float:
    return NormalDist().inv_cdf(percentile / 100)
