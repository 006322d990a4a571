"""The forecast: how long each checkpoint would take for this request, as quantiles that live answers keep honest.

A forecast is queueing delay (from the load book) plus service time (from the cost, by the latency profile) plus
overhead (measured). How far answers strayed from it, in units of a scale that grows with the work, gives its quantiles
(`calibration`). Errors met behind queued work and errors met without any are kept apart (Mondrian conformal
prediction: Vovk et al., "Algorithmic Learning in a Random World", 2005, section 4.5), so that an overload is not held
against the idle gateway after it. Until a checkpoint has met enough of its own, those of all checkpoints together
stand in, and until there are enough of those the profile's spread.
"""

from __future__ import annotations

import math

from msgspec import Struct
from msgspec.structs import replace

from gateway.forecasting.calibration import MAX_AGE_S, Calibration
from gateway.forecasting.load import LoadTracker, QueueAhead
from gateway.model.messages import Answer
from gateway.model.request import RequestShape
from gateway.model.tier import Tier
from gateway.tasks.service_time import ServiceTimeModel

_LEAST_SIGMA = 0.10
_OVERHEAD_SIGMA = 0.25
_SMOOTHING = 0.05
_FIRST_OVERHEAD_S = 0.0015
_LEAST_OVERHEAD_S = 0.0001
_PLAIN_CHARACTERS, _PLAIN_SPREAD = 400, 2.0
"""The text that a plain forecast is made for, and its quantile over its median."""


class Forecast(Struct, frozen=True, gc=False):
    """Predicted latency of one request on one checkpoint, in seconds.

    `latency_s` is the median; `quantile_s` is not exceeded with the `percentile` that was asked for, and
    `idle_quantile_s` likewise with nothing queued; one in twenty takes less than `least_s`. `backlog_s` is all that is
    queued, of which `queueing_delay_s` is waited for. `cost_s` is the request's share of the run at the least, in
    core-seconds; it does not depend on the budget.
    """

    queueing_delay_s: float
    service_time_s: float
    latency_s: float
    quantile_s: float
    idle_quantile_s: float
    least_s: float = 0.0
    cost_s: float = 0.0
    backlog_s: float = 0.0
    percentile: float = 95.0


class PooledCalibration:
    """What all checkpoints of one gateway meet alike: its overhead, and how far all their forecasts strayed together.

    A checkpoint that is seldom chosen has little of its own to go by, and what it once met would stay true for it
    for ever; what the others meet at this moment is the better guess.
    """

    def __init__(self) -> None:
        self.overhead_s = _FIRST_OVERHEAD_S
        self.idle = Calibration()
        self.queued = Calibration()

    def learn_overhead(self, overhead_s: float) -> None:
        """Takes the overhead of one answer, in seconds; one freak does not spoil it."""
        most_s = 10 * max(self.overhead_s, _LEAST_OVERHEAD_S)
        self.overhead_s += _SMOOTHING * (min(max(overhead_s, 0.0), most_s) - self.overhead_s)


class Forecaster:
    """Forecasts one checkpoint and learns from its answers. It is told the time; it reads no clock."""

    def __init__(self, model: ServiceTimeModel, pooled: PooledCalibration | None = None, cores: int = 1) -> None:
        """`cores` is how many processors one run of the engine uses."""
        self.model = model
        self._cores = cores
        self._sigma = max(model.sigma, _LEAST_SIGMA)
        self._pooled = pooled or PooledCalibration()
        self._idle = Calibration(self._pooled.idle)
        self._queued = Calibration(self._pooled.queued)
        self._learnt_until_s = math.inf
        self._plain_s = model.run_s(1, _PLAIN_CHARACTERS)

    def plain(self, percentile: float) -> Forecast:
        """The forecast of any request by the profile as it was read: for when forecasting fails."""
        latency_s = self._plain_s + _FIRST_OVERHEAD_S
        quantile_s = _PLAIN_SPREAD * latency_s
        return Forecast(
            0.0,
            self._plain_s,
            latency_s,
            quantile_s,
            quantile_s,
            cost_s=self._cores * self._plain_s,
            percentile=percentile,
        )

    def forecast(
        self, asked: RequestShape, ahead: QueueAhead, percentile: float, now_s: float, remaining_s: float
    ) -> Forecast:
        """The forecast of a request behind so much work, done as well as what remains of its budget has room for.

        Where that leaves no room for its quantile, it is forecast as done at the least. `percentile` is in percent,
        as the client gives it. It is made for every candidate of every request: so it makes hardly any calls.
        """
        if now_s > self._learnt_until_s:
            self._forget()
        overhead_s, backlog_s = self._pooled.overhead_s, ahead.backlog_s
        companions, turns = ahead.companions, ahead.sharing is not None
        room_s = remaining_s - overhead_s - (0.0 if turns else backlog_s)
        fully_s, service_s = self.model.service_times_s(asked, room_s, companions)
        cost_s = self._cores * service_s
        if companions:
            cost_s *= len(asked.characters) / (len(asked.characters) + companions)
        try:
            residuals = self._idle.known[percentile]
        except KeyError:
            residuals = self._idle.read(percentile, now_s)
        if now_s > residuals.until_s:
            residuals = self._idle.read(percentile, now_s)
        sigma, latency_s = self._sigma, service_s + overhead_s
        scale_s = sigma * latency_s + _OVERHEAD_SIGMA * overhead_s
        least_s, idle_s = latency_s + residuals.least * scale_s, latency_s + residuals.most * scale_s
        if least_s < 0.0:
            least_s = 0.0
        if idle_s < least_s:
            idle_s = least_s
        quantile_s, delay_s = idle_s, 0.0
        if backlog_s > 0 and (delay_s := ahead.delay_s(service_s) if turns else backlog_s) > 0:
            try:
                residuals = self._queued.known[percentile]
            except KeyError:
                residuals = self._queued.read(percentile, now_s)
            if now_s > residuals.until_s:
                residuals = self._queued.read(percentile, now_s)
            latency_s += delay_s
            scale_s += sigma * delay_s
            if (behind_s := latency_s + residuals.most * scale_s) > quantile_s:
                quantile_s = behind_s
            if (behind_s := latency_s + residuals.least * scale_s) > least_s:
                least_s = behind_s
        least = Forecast(delay_s, service_s, latency_s, quantile_s, idle_s, least_s, cost_s, backlog_s, percentile)
        if fully_s > service_s:
            return self._as_fits(fully_s, least, ahead, now_s, remaining_s)
        return least

    def _as_fits(
        self, service_s: float, least: Forecast, ahead: QueueAhead, now_s: float, remaining_s: float
    ) -> Forecast:
        """The same with so much service time, if that fits. What it costs and takes at the least does not change."""
        delay_s = ahead.delay_s(service_s)
        latency_s = service_s + self._pooled.overhead_s
        residual = self._idle.residuals(least.percentile, now_s).most
        quantile_s = max(least.quantile_s, latency_s + residual * self._scale_s(latency_s))
        if delay_s > 0:
            latency_s += delay_s
            residual = self._queued.residuals(least.percentile, now_s).most
            quantile_s = max(quantile_s, latency_s + residual * self._scale_s(latency_s))
        if quantile_s > remaining_s:
            return least
        return replace(
            least,
            queueing_delay_s=delay_s,
            service_time_s=service_s,
            latency_s=latency_s,
            quantile_s=quantile_s,
        )

    def run_s(self, inputs: int, characters: int) -> float:
        """The median core-seconds of a run of so many inputs of so many characters each."""
        return self._cores * self.model.run_s(inputs, characters)

    def reach_s(self, run_s: float, percentile: float, now_s: float) -> float:
        """What a request takes at that percentile, overhead included, if it waits for nothing but a run of `run_s`."""
        latency_s = run_s / self._cores + self._pooled.overhead_s
        reach_s: float = latency_s + self._idle.residuals(percentile, now_s).most * self._scale_s(latency_s)
        return max(reach_s, 0.0)

    def learn(self, forecast: Forecast, asked: RequestShape, answer: Answer, latency_s: float, now_s: float) -> None:
        """Takes the latency that was seen for what was forecast, in seconds from the decision to the answer.

        An answer that its deadline cut says only that it would have taken longer: it counts as no less than the
        quantile. Else a checkpoint that is cut every time would seem as quick as its budgets are short.
        """
        timings = answer.timings
        overhead_s = latency_s - timings.queueing_delay_s - timings.service_time_s
        if any(one.finish_reason == "deadline" for one in answer.generation):
            latency_s = max(latency_s, forecast.quantile_s)
        self.learn_latency(forecast, latency_s, overhead_s, now_s)
        self.model.learn(asked, answer)

    def learn_latency(self, forecast: Forecast, latency_s: float, overhead_s: float, now_s: float) -> None:
        """Takes how far the forecast strayed, and how much of the latency was overhead, in seconds."""
        residual = (latency_s - forecast.latency_s) / self._scale_s(forecast.latency_s)
        own, shared = self._calibrations(forecast)
        own.learn(residual, forecast.percentile, now_s)
        shared.learn(residual, forecast.percentile, now_s)
        self._pooled.learn_overhead(overhead_s)
        self._learnt_until_s = now_s + MAX_AGE_S

    def learn_expired(self, forecast: Forecast, waited_s: float, now_s: float) -> None:
        """Takes that there was no answer after so many seconds, when it was given up.

        Without these a strict client's forecasts would be learnt from those of his requests alone that came in time.
        """
        residual = (waited_s - forecast.latency_s) / self._scale_s(forecast.latency_s)
        for calibration in self._calibrations(forecast):
            calibration.learn_beyond(residual, forecast.percentile, now_s)
        self._learnt_until_s = now_s + MAX_AGE_S

    def _calibrations(self, forecast: Forecast) -> tuple[Calibration, Calibration]:
        """Where errors of such a forecast belong: the checkpoint's own, and that of its surroundings."""
        if forecast.queueing_delay_s > 0:
            return self._queued, self._pooled.queued
        return self._idle, self._pooled.idle

    def _scale_s(self, latency_s: float) -> float:
        return self._sigma * latency_s + _OVERHEAD_SIGMA * self._pooled.overhead_s

    def _forget(self) -> None:
        """What nothing has been heard of for so long is taken to be as it was profiled again."""
        self.model.forget()
        self._learnt_until_s = math.inf


USUAL_PERCENTILE = 95.0


class ServedCheckpoint:
    """One checkpoint of a task. `quality` orders the checkpoints; `utility` is what an answer is worth, in points.

    `threads` are the cores that one batch keeps busy, `slots_per_replica` the batches that a replica runs at once.
    """

    __slots__ = (
        "domain",
        "forecaster",
        "load",
        "max_batch",
        "name",
        "quality",
        "slots_per_replica",
        "threads",
        "tier",
        "utility",
    )

    def __init__(
        self,
        name: str,
        tier: Tier,
        quality: float,
        utility: float,
        domain: str | None,
        forecaster: Forecaster,
        load: LoadTracker,
        threads: int = 1,
        slots_per_replica: int = 1,
    ) -> None:
        self.name, self.tier, self.quality, self.utility, self.domain = name, tier, quality, utility, domain
        self.forecaster = forecaster
        self.load = load
        self.max_batch = forecaster.model.max_batch
        self.threads = threads
        self.slots_per_replica = slots_per_replica

    @property
    def slots(self) -> int:
        """How many batches its replicas run at once; 0 while none is up."""
        return self.load.replicas(self.name) * self.slots_per_replica

    def plain_forecast(self, percentile: float, now_s: float) -> Forecast | None:
        """The forecast by the profile alone; None while no replica is up."""
        return None if self.load.ahead(self.name, now_s) is None else self.forecaster.plain(percentile)

    def others_s(self, now_s: float) -> float:
        """How long what other gateways sent its replicas would keep a request waiting, in seconds."""
        return self.load.others_s(self.name, now_s)

    def run_s(self, inputs: int, characters: int) -> float:
        """The median core-seconds of one batch of so many inputs of so many characters each."""
        return self.forecaster.run_s(inputs, characters)

    def reach_s(self, run_s: float, now_s: float) -> float:
        """What a request takes by the 95th percentile, overhead included, in a batch expected to take `run_s`."""
        return self.forecaster.reach_s(run_s, USUAL_PERCENTILE, now_s) + self.others_s(now_s)
