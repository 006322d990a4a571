"""The forecast: how long each checkpoint would take for a request, as quantiles calibrated on live answers.

A forecast is queueing delay (from the load tracker) plus service time (from the latency profile) plus measured
overhead. The errors of past forecasts, in units of a scale that grows with the work, give its quantiles
(`calibration`). Errors behind queued work and errors on an idle replica are kept apart (Mondrian conformal prediction:
Vovk et al., "Algorithmic Learning in a Random World", 2005, section 4.5), so that an overload does not count against
the idle gateway after it. Errors of texts whose tokens were estimated by samples are apart, too: what one client's odd
texts take beyond their estimate is held against no other's. Until a checkpoint has enough errors of its own, those of
all checkpoints stand in; until those are enough, the profile's spread does.
"""

from __future__ import annotations

import math

from msgspec import Struct
from msgspec.structs import replace

from gateway.forecasting.calibration import MAX_AGE_S, Calibration
from gateway.forecasting.load import LoadTracker, QueueAhead
from gateway.model.messages import Answer
from gateway.model.profile import LoneRuns
from gateway.model.request import RequestShape
from gateway.model.tier import Tier
from gateway.tasks.service_time import SLOWDOWN_WEIGHT, ServiceTimeModel, Slowdown, TellsEarly

_LEAST_SIGMA = 0.10
"""Least relative spread of a latency, if the profile shows less. Set by hand."""

_SMOOTHING = 0.05
"""Weight of a new observation of the overhead."""

_FIRST_OVERHEAD_S = 0.0015
"""Overhead before any answer, in seconds. Set by hand."""

_LEAST_OVERHEAD_S = 0.0001
"""Least overhead, in seconds, from which the limit on a new observation is computed."""

_PLAIN_TOKENS, _PLAIN_SPREAD = 110, 2.0
"""Length of the text that a plain forecast is made for, in tokens, and its quantile divided by its median."""


class FirstToken(Struct, frozen=True, gc=False):
    """Predicted seconds until the first text of an answer is told; its fields are as those of a `Forecast`."""

    latency_s: float
    quantile_s: float
    idle_quantile_s: float
    least_s: float


class Forecast(Struct, frozen=True, gc=False):
    """Predicted latency of one request on one checkpoint, in seconds.

    `latency_s` is the median by the profile and the overhead: past errors are measured from it, and are not in it. They
    are in the quantiles, which `median_s` stays between. `quantile_s` is the quantile at `percentile`,
    `idle_quantile_s` the one with nothing queued, and one answer in twenty takes less than `least_s`. `backlog_s` is
    all queued work, of which the request waits for `queueing_delay_s`. `cost_s` is the request's share of the batch in
    core-seconds, done the cheapest way; it does not depend on the budget. A `lone` run has all processors of its
    replica, and costs what a usual run does. `sampled` says that the tokens were estimated. `first` is of the first
    text of an answer that is streamed.
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
    sampled: bool = False
    lone: bool = False
    first: FirstToken | None = None

    @property
    def median_s(self) -> float:
        """The median as clients are told it: `latency_s`, or the nearest that the calibrated quantiles leave room for.

        Where all answers take longer than the profile says, `least_s` grows beyond `latency_s`.
        """
        median_s = self.latency_s
        if median_s > self.quantile_s and self.percentile >= 50.0:
            median_s = self.quantile_s
        return median_s if median_s > self.least_s else self.least_s


class PooledCalibration:
    """What all checkpoints of one gateway have in common: the overhead, and the errors of all their forecasts.

    A checkpoint that is seldom chosen has few errors of its own, and old ones would stay for ever. What the others meet
    now is the better guess.
    """

    def __init__(self) -> None:
        self.overhead_s = _FIRST_OVERHEAD_S
        self.idle = Calibration()
        self.queued = Calibration()
        self.lone = Calibration()
        self.sampled_idle = Calibration()
        self.sampled_queued = Calibration()
        self.first = Calibration()
        self._learnt_until_s = math.inf

    def learn_overhead(self, overhead_s: float, now_s: float) -> None:
        """Learns from the overhead of one answer, in seconds; at most ten times the present value counts."""
        most_s = 10 * max(self.overhead_s, _LEAST_OVERHEAD_S)
        self.overhead_s += _SMOOTHING * (min(max(overhead_s, 0.0), most_s) - self.overhead_s)
        self._learnt_until_s = now_s + MAX_AGE_S

    def forget(self, now_s: float) -> float:
        """Returns to the first overhead after a minute without any; returns when to ask again.

        Refused requests teach none, so clients that ask strictly would be refused for ever after a slow minute.
        """
        if now_s > self._learnt_until_s:
            self.overhead_s, self._learnt_until_s = _FIRST_OVERHEAD_S, math.inf
        return self._learnt_until_s


class Forecaster:
    """Forecasts one checkpoint and learns from its answers. Callers pass the time; it reads no clock."""

    def __init__(
        self,
        model: ServiceTimeModel,
        pooled: PooledCalibration | None = None,
        cores: int = 1,
        tokenizer: int = 0,
        lone: LoneRuns | None = None,
    ) -> None:
        """`cores` is the number of processors that one run of the engine uses.

        `tokenizer` is the place of the checkpoint's tokenizer among those of its task. `lone` tells what a run gains
        that has the node for itself; None if its replicas make none.
        """
        self.model = model
        self.tokenizer = tokenizer
        self._cores = cores
        self._sigma = max(model.sigma, _LEAST_SIGMA)
        self._pooled = pooled or PooledCalibration()
        self._idle = Calibration(self._pooled.idle)
        self._queued = Calibration(self._pooled.queued)
        self._lone = Calibration(self._pooled.lone)
        self._lone_slowdown = Slowdown(SLOWDOWN_WEIGHT)
        self._lone_until_s = math.inf
        self.lone = lone
        self._sampled_idle = Calibration(self._pooled.sampled_idle)
        self._sampled_queued = Calibration(self._pooled.sampled_queued)
        self._first = Calibration(self._pooled.first)
        self._early = model if isinstance(model, TellsEarly) else None
        self._learnt_until_s = math.inf
        self._plain_s = model.run_s(1, _PLAIN_TOKENS)

    def plain(self, percentile: float) -> Forecast:
        """Forecasts any request by the profile alone: used if forecasting fails."""
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

    def forecast(  # noqa: C901 - its calls written out: it runs for every candidate of every request
        self, shape: RequestShape, ahead: QueueAhead, percentile: float, now_s: float, remaining_s: float
    ) -> Forecast:
        """Forecasts a request behind queued work, done as well as the rest of its budget allows.

        If that leaves no room for its quantile, the forecast is of the cheapest way to do it. `percentile` is in
        percent, as the client gives it.
        """
        if now_s > self._learnt_until_s:
            self._forget(now_s)
        idle, queued = self._errors(shape.sampled)
        overhead_s, backlog_s, companions = self._pooled.overhead_s, ahead.backlog_s, ahead.companions
        sliced = ahead.sharing is not None
        available_s = remaining_s - overhead_s - (0.0 if sliced else backlog_s)
        fully_s, service_s = self.model.service_times_s(
            shape.tokens[self.tokenizer], shape.parameters, available_s, companions
        )
        cost_s = self._cores * service_s
        if companions:
            cost_s *= shape.texts / (shape.texts + companions)
        try:
            residuals = idle.known[percentile]
        except KeyError:
            residuals = idle.read(percentile, now_s)
        if now_s > residuals.until_s:
            residuals = idle.read(percentile, now_s)
        latency_s = service_s + overhead_s
        scale_s = self._sigma * latency_s
        least_s, idle_s = latency_s + residuals.least * scale_s, latency_s + residuals.most * scale_s
        if least_s < 0.0:
            least_s = 0.0
        if idle_s < least_s:
            idle_s = least_s
        quantile_s, delay_s = idle_s, 0.0
        if backlog_s > 0 and (delay_s := ahead.delay_s(service_s) if sliced else backlog_s) > 0:
            try:
                residuals = queued.known[percentile]
            except KeyError:
                residuals = queued.read(percentile, now_s)
            if now_s > residuals.until_s:
                residuals = queued.read(percentile, now_s)
            latency_s += delay_s
            scale_s += self._sigma * delay_s
            if (behind_s := latency_s + residuals.most * scale_s) > quantile_s:
                quantile_s = behind_s
            if (behind_s := latency_s + residuals.least * scale_s) > least_s:
                least_s = behind_s
        least = Forecast(
            delay_s, service_s, latency_s, quantile_s, idle_s, least_s, cost_s, backlog_s, percentile, shape.sampled
        )
        if fully_s > service_s:
            return self._if_it_fits(fully_s, least, ahead, now_s, remaining_s)
        return least

    def streamed(self, forecast: Forecast, shape: RequestShape, ahead: QueueAhead, now_s: float) -> Forecast:
        """The forecast with that of the first text, where the answer is told while it is written.

        It comes after the queue, the reading and the first steps; where a checkpoint tells nothing before, at the end.
        The errors of such forecasts are learnt apart from those of whole answers.
        """
        service_s = forecast.service_time_s
        if self._early is not None:
            tokens = shape.tokens[self.tokenizer]
            service_s = min(self._early.first_token_s(tokens, shape.parameters, ahead.companions), service_s)
        delay_s = ahead.delay_s(service_s) if ahead.backlog_s > 0 else 0.0
        idle_s = service_s + self._pooled.overhead_s
        residuals, latency_s = self._first.residuals(forecast.percentile, now_s), idle_s + delay_s
        least_s = max(latency_s + residuals.least * self._scale_s(latency_s), 0.0)
        idle_quantile_s = max(idle_s + residuals.most * self._scale_s(idle_s), 0.0)
        quantile_s = max(latency_s + residuals.most * self._scale_s(latency_s), idle_quantile_s, least_s)
        return replace(forecast, first=FirstToken(latency_s, quantile_s, idle_quantile_s, least_s))

    def learn_first(self, forecast: Forecast, took_s: float, now_s: float, *, beyond: bool = False) -> None:
        """Learns when the first text was told, in seconds from the decision; `beyond` says that none was by then."""
        if forecast.first is None:
            return
        residual = (took_s - forecast.first.latency_s) / self._scale_s(forecast.first.latency_s)
        for calibration in (self._first, self._pooled.first):
            (calibration.learn_beyond if beyond else calibration.learn)(residual, forecast.percentile, now_s)

    def hurried(self, usual: Forecast, shape: RequestShape, now_s: float, remaining_s: float) -> Forecast:
        """Forecasts a request that has the node for itself, by its forecast on an idle replica.

        Returns that one if no lone run pays: by the profile, or by what those before took on this machine. While few
        errors of such are known, a lone run is tried where there is time for it.
        """
        if self.lone is None or usual.sampled:  # an estimate of tokens is uncertain enough
            return usual
        share = self.lone.share(sum(shape.tokens[self.tokenizer]))
        if share == 1.0:
            return usual
        if now_s > self._lone_until_s:
            self._lone_slowdown, self._lone_until_s = Slowdown(SLOWDOWN_WEIGHT), math.inf
        service_s = share * usual.service_time_s / self.model.slowdown.value * self._lone_slowdown.value
        if service_s >= usual.service_time_s:
            return usual
        latency_s = service_s + self._pooled.overhead_s
        residuals, scale_s = self._lone.residuals(usual.percentile, now_s), self._scale_s(latency_s)
        least_s = max(latency_s + residuals.least * scale_s, 0.0)
        quantile_s = max(latency_s + residuals.most * scale_s, least_s)
        if quantile_s >= usual.quantile_s and (self._lone.enough or quantile_s > remaining_s):
            return usual
        return replace(
            usual,
            service_time_s=service_s,
            latency_s=latency_s,
            quantile_s=quantile_s,
            idle_quantile_s=quantile_s,
            least_s=least_s,
            lone=True,
        )

    def _if_it_fits(
        self, service_s: float, least: Forecast, ahead: QueueAhead, now_s: float, remaining_s: float
    ) -> Forecast:
        """Returns the forecast with more service time if it fits, else `least`. Its cost and least latency stay."""
        delay_s = ahead.delay_s(service_s)
        latency_s = service_s + self._pooled.overhead_s
        idle, queued = self._errors(least.sampled)
        residual = idle.residuals(least.percentile, now_s).most
        quantile_s = max(least.quantile_s, latency_s + residual * self._scale_s(latency_s))
        if delay_s > 0:
            latency_s += delay_s
            residual = queued.residuals(least.percentile, now_s).most
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

    def run_s(self, inputs: int, tokens: int) -> float:
        """Median core-seconds of a batch of `inputs` texts of `tokens` tokens each."""
        return self._cores * self.model.run_s(inputs, tokens)

    def joined_s(self, shape: RequestShape, companions: int) -> float:
        """Median core-seconds of a request that shares steps with so many texts under way, done the cheapest way."""
        tokens = shape.tokens[self.tokenizer]
        return self._cores * self.model.service_times_s(tokens, shape.parameters, 0.0, companions)[1]

    def service_s(self, shape: RequestShape, now_s: float) -> float:
        """Median seconds of a request alone on the engine, done the cheapest way."""
        if now_s > self._learnt_until_s:
            self._forget(now_s)
        return self.model.service_times_s(shape.tokens[self.tokenizer], shape.parameters, 0.0)[1]

    def reach_s(self, run_s: float, percentile: float, now_s: float) -> float:
        """Latency at that percentile of a request with nothing queued before its run of `run_s` core-seconds."""
        latency_s = run_s / self._cores + self._pooled.overhead_s
        reach_s: float = latency_s + self._idle.residuals(percentile, now_s).most * self._scale_s(latency_s)
        return max(reach_s, 0.0)

    def learn(self, forecast: Forecast, shape: RequestShape, answer: Answer, latency_s: float, now_s: float) -> None:
        """Learns from an answer that took `latency_s` seconds from the decision.

        An answer that its deadline cut short would have taken longer, so it counts as at least the quantile. Otherwise
        a checkpoint that is always cut would seem as fast as its budgets are short. Texts that were their own summaries
        say nothing of how long others take, and nor do those that went along with an equal one.
        """
        if answer.followed or any(one.finish_reason == "short" for one in answer.generation):
            return  # no engine ran for a part of it
        timings = answer.timings
        overhead_s = latency_s - timings.queueing_delay_s - timings.service_time_s
        if any(one.finish_reason == "deadline" for one in answer.generation):
            latency_s = max(latency_s, forecast.quantile_s)
        self.learn_latency(forecast, latency_s, overhead_s, now_s)
        self.learn_service(forecast, shape, answer)

    def learn_service(self, forecast: Forecast, shape: RequestShape, answer: Answer) -> None:
        """Learns the service time of an answer alone. A lone run teaches how fast such are, and no others."""
        if answer.followed:
            return
        if forecast.lone:
            if any(one.restored for one in answer.generation):
                return
            profiled_s = forecast.service_time_s / self._lone_slowdown.value
            self._lone_slowdown.learn(answer.timings.service_time_s, profiled_s)
        else:
            self.model.learn(shape.tokens[self.tokenizer], shape.parameters, _as_run(answer, shape.copies))

    def learn_latency(self, forecast: Forecast, latency_s: float, overhead_s: float, now_s: float) -> None:
        """Learns the error of a forecast and the overhead, in seconds."""
        residual = (latency_s - forecast.latency_s) / self._scale_s(forecast.latency_s)
        own, shared = self._calibrations(forecast)
        own.learn(residual, forecast.percentile, now_s)
        shared.learn(residual, forecast.percentile, now_s)
        if not forecast.sampled:  # reading a long text takes longer, which is a part of its own error
            self._pooled.learn_overhead(overhead_s, now_s)
        self._heard(forecast, now_s)

    def learn_expired(self, forecast: Forecast, waited_s: float, now_s: float) -> None:
        """Learns that no answer had come after `waited_s` seconds, when the request was given up.

        Without this, a strict client's forecasts would be learnt only from requests that came in time.
        """
        residual = (waited_s - forecast.latency_s) / self._scale_s(forecast.latency_s)
        for calibration in self._calibrations(forecast):
            calibration.learn_beyond(residual, forecast.percentile, now_s)
        self._heard(forecast, now_s)

    def _heard(self, forecast: Forecast, now_s: float) -> None:
        """Notes when what is known of such runs will be too old."""
        if forecast.lone:
            self._lone_until_s = now_s + MAX_AGE_S
        else:
            self._learnt_until_s = now_s + MAX_AGE_S

    def _calibrations(self, forecast: Forecast) -> tuple[Calibration, Calibration]:
        """The calibrations of such a forecast: the checkpoint's own, and the pooled one."""
        pooled = self._pooled
        idle, queued = self._errors(forecast.sampled)
        if forecast.queueing_delay_s > 0:
            return queued, pooled.sampled_queued if forecast.sampled else pooled.queued
        if forecast.lone:
            return self._lone, pooled.lone
        return idle, pooled.sampled_idle if forecast.sampled else pooled.idle

    def _errors(self, sampled: bool) -> tuple[Calibration, Calibration]:
        """The checkpoint's own errors on an idle replica, and behind queued work."""
        return (self._sampled_idle, self._sampled_queued) if sampled else (self._idle, self._queued)

    def _scale_s(self, latency_s: float) -> float:
        return self._sigma * latency_s

    def _forget(self, now_s: float) -> None:
        """Returns to the profile's service times after a minute without any answer."""
        self.model.forget()
        self._learnt_until_s = self._pooled.forget(now_s)


USUAL_PERCENTILE = 95.0
"""The percentile that the scheduler plans by, in percent: the default of `X-SLA-Percentile`."""


def _as_run(answer: Answer, copies: float) -> Answer:
    """The answer as if each of its equal texts had been sent once, as they were run; reports count them all."""
    if copies == 1:
        return answer
    read = answer.input
    once = replace(read, kept=round(read.kept / copies), windows=round(read.windows / copies))
    return replace(answer, input=once)


class ServedCheckpoint:
    """One checkpoint of a task as it is served. `quality` orders checkpoints; `utility` is in points of quality.

    `threads` is the number of cores that one batch occupies, `slots_per_replica` the batches that a replica runs at
    once. A `shared` one has work of other tasks too, which the queue of this task does not know.
    """

    __slots__ = (
        "domain",
        "forecaster",
        "joins",
        "load",
        "max_batch",
        "name",
        "quality",
        "shared",
        "slots_per_replica",
        "threads",
        "tier",
        "tokenizer",
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
        shared: bool = False,
    ) -> None:
        self.name, self.tier, self.quality, self.utility, self.domain = name, tier, quality, utility, domain
        self.forecaster = forecaster
        self.load = load
        self.max_batch, self.joins = forecaster.model.max_batch, forecaster.model.joins
        self.tokenizer = forecaster.tokenizer
        self.threads = threads
        self.slots_per_replica = slots_per_replica
        self.shared = shared

    @property
    def slots(self) -> int:
        """The number of batches that its replicas run at once; 0 while none is up."""
        return self.load.replicas(self.name) * self.slots_per_replica

    def plain_forecast(self, percentile: float, now_s: float) -> Forecast | None:
        """The forecast by the profile alone; None while no replica is up."""
        return None if self.load.ahead(self.name, now_s) is None else self.forecaster.plain(percentile)

    def others_s(self, now_s: float) -> float:
        """Queueing delay behind work that other gateways or other tasks sent to its replicas, in seconds."""
        if self.shared:
            return self.load.backlog_s(self.name, now_s) or 0.0
        return self.load.others_s(self.name, now_s)

    def run_s(self, inputs: int, tokens: int) -> float:
        """Median core-seconds of one batch of `inputs` texts of `tokens` tokens each, by its own tokenizer."""
        return self.forecaster.run_s(inputs, tokens)

    def joined_s(self, shape: RequestShape, companions: int) -> float:
        """Median core-seconds of a request that shares steps with so many texts under way."""
        return self.forecaster.joined_s(shape, companions)

    def reach_s(self, run_s: float, now_s: float) -> float:
        """Latency at the 95th percentile, overhead included, of a request in a batch of `run_s` core-seconds."""
        return self.forecaster.reach_s(run_s, USUAL_PERCENTILE, now_s) + self.others_s(now_s)
