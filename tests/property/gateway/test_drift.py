"""Laws of the forecast over time: its coverage is nominal on a steady machine, and soon again after a change."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import pytest
from fakes import latency_profile

from gateway.forecasting.forecaster import Forecast, Forecaster
from gateway.forecasting.load import QueueAhead
from gateway.model.messages import Answer, InputReport, ReplicaTimings
from gateway.model.request import RequestShape
from gateway.tasks.classify import ClassifyParameters
from gateway.tasks.service_time import BatchedModel

PROFILE = latency_profile(0.010)
WINDOW_TOKENS = 64
NO_END_S = 600.0
Errors: TypeAlias = Callable[[random.Random], float]
"""Draws the ratio of a service time to its profile."""


def log_normal(chance: random.Random) -> float:
    """Draw from a log-normal distribution, which service times usually follow."""
    return math.exp(chance.gauss(0.0, 0.25))


def heavy(chance: random.Random) -> float:
    """Draw about 1, but up to 5 one time in ten."""
    return chance.uniform(0.9, 1.1) if chance.random() < 0.9 else chance.uniform(1.0, 5.0)


def tied(chance: random.Random) -> float:
    """Draw nearly equal times, as a coarse clock gives them."""
    return chance.choice((1.0, 1.0, 1.0, 1.25, 1.5, 2.0))


def doubled(chance: random.Random) -> float:
    """Draw twice what is usual."""
    return 2.0 * log_normal(chance)


def strained(chance: random.Random) -> float:
    """Draw half as much again, and one time in ten much more."""
    return 1.5 * log_normal(chance) * (chance.uniform(1.0, 4.0) if chance.random() < 0.1 else 1.0)


@dataclass(frozen=True)
class Seen:
    """A forecast and the latency that came of it."""

    forecast: Forecast
    latency_s: float

    @property
    def covered(self) -> bool:
        """Return whether the latency was at or under the quantile."""
        return self.latency_s <= self.forecast.quantile_s


def served(
    forecaster: Forecaster,
    phases: list[tuple[Errors, int]],
    percentiles: tuple[float, ...],
    seed: int,
    queues_s: tuple[float, ...] = (0.0,),
    under_way: int = 0,
) -> Iterator[Seen]:
    """Serve single texts in phases of (errors, count); each answer comes after `under_way` later forecasts."""
    chance = random.Random(seed)
    pending: deque[tuple[Seen, Answer, RequestShape]] = deque()
    now_s = 0.0
    for errors, count in phases:
        for _ in range(count):
            now_s += 0.02
            tokens = round(0.27 * chance.randint(4, 100)) + 2
            asked = RequestShape(((tokens,),), ClassifyParameters())
            queue_s = chance.choice(queues_s)
            forecast = forecaster.forecast(asked, QueueAhead(queue_s), chance.choice(percentiles), now_s, NO_END_S)
            run_s = PROFILE.median_s(1, tokens) * errors(chance)
            waited_s = queue_s * errors(chance)
            latency_s = waited_s + run_s + 0.0015 * chance.uniform(0.7, 1.5)
            timings = ReplicaTimings(waited_s, run_s, waited_s + run_s, 1)
            answer = Answer((), InputReport(tokens, tokens, False), timings)
            seen = Seen(forecast, latency_s)
            pending.append((seen, answer, asked))
            if len(pending) > under_way:
                past, told, of = pending.popleft()
                forecaster.learn(past.forecast, of, told, past.latency_s, now_s)
            yield seen


def forecaster() -> Forecaster:
    """Return a forecaster that has learnt nothing yet."""
    return Forecaster(BatchedModel(PROFILE, WINDOW_TOKENS))


def coverage(seen: list[Seen]) -> float:
    """Return the share that was covered, in percent."""
    return 100 * sum(one.covered for one in seen) / len(seen)


@pytest.mark.parametrize("percentile", [50.0, 90.0, 95.0, 99.0])
@pytest.mark.parametrize("errors", [log_normal, heavy, tied, strained])
def test_a_steady_machine_is_covered_as_it_says(errors: Errors, percentile: float) -> None:
    """On a steady machine the P % quantile covers P % of the answers, within two points, idle and queued."""
    seen = list(served(forecaster(), [(errors, 3200)], (percentile,), 1, queues_s=(0.0, 0.0, 0.02, 0.1)))
    assert coverage(seen[200:]) == pytest.approx(percentile, abs=2.0)


@pytest.mark.parametrize("under_way", [0, 8])
@pytest.mark.parametrize("disturbed", [doubled, strained])
def test_after_a_change_it_is_soon_covered_again(disturbed: Errors, under_way: int) -> None:
    """Within 300 requests of a slowdown or a recovery, the 95 % quantile covers 93 to 97 % again."""
    for seed in range(5):
        phases = [(log_normal, 600), (disturbed, 900), (log_normal, 900)]
        seen = list(served(forecaster(), phases, (95.0,), seed, under_way=under_way))
        after = [coverage(seen[began : began + 300]) for began in (900, 1200, 1800, 2100)]
        assert all(93 <= one <= 97 for one in after), (seed, after)


@pytest.mark.parametrize("disturbed", [doubled, strained])
def test_every_percentile_is_covered_again_where_clients_ask_for_several(disturbed: Errors) -> None:
    """After a change each of several percentiles in use covers its own share again, within three points."""
    asked_for = (50.0, 90.0, 95.0, 99.0)
    seen: list[Seen] = []
    for seed in range(6):
        run = list(served(forecaster(), [(log_normal, 600), (disturbed, 1500)], asked_for, seed))
        seen += run[900:]
    for percentile in asked_for:
        of_it = [one for one in seen if one.forecast.percentile == percentile]
        assert coverage(of_it) == pytest.approx(percentile, abs=3.0)


def test_the_median_follows_the_machine() -> None:
    """Forty answers after a slowdown the median again has half of the answers under it, within a tenth."""
    seen = list(served(forecaster(), [(log_normal, 100), (doubled, 400)], (95.0,), 3))
    early = sum(one.latency_s <= one.forecast.latency_s for one in seen[140:]) / len(seen[140:])
    assert early == pytest.approx(0.5, abs=0.1)


def test_one_in_twenty_takes_less_than_the_least() -> None:
    """One answer in twenty undercuts the optimistic forecast, on a steady machine and after a change."""
    seen = list(served(forecaster(), [(log_normal, 1500), (strained, 1500)], (95.0,), 4, queues_s=(0.0, 0.05)))
    for part in (seen[200:1500], seen[1800:]):
        sooner = sum(one.latency_s < one.forecast.least_s for one in part) / len(part)
        assert sooner == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("errors", [log_normal, heavy, strained])
def test_of_those_refused_nearly_all_would_have_been_late(errors: Errors) -> None:
    """At least 95 % of the requests refused by the optimistic forecast would have been late.

    The forecast learns only from the admitted ones; of an expired one it learns only that it expired.
    """
    refused = rightly = admitted = 0
    for seed in range(3):
        chance, known = random.Random(seed), forecaster()
        asked = RequestShape(((18,),), ClassifyParameters())
        for number in range(3000):
            now_s, queue_s = number * 0.02, chance.choice((0.0, 0.01, 0.05))
            budget_s = math.exp(chance.uniform(math.log(0.004), math.log(0.4)))
            forecast = known.forecast(asked, QueueAhead(queue_s), 95.0, now_s, budget_s)
            run_s, waited_s = PROFILE.median_s(1, 18) * errors(chance), queue_s * errors(chance)
            latency_s = run_s + waited_s + 0.0015
            if forecast.least_s > budget_s:
                refused, rightly = refused + 1, rightly + (latency_s > budget_s)
                continue
            admitted += 1
            if latency_s > budget_s:
                known.learn_expired(forecast, budget_s, now_s)
            else:
                timings = ReplicaTimings(waited_s, run_s, waited_s + run_s, 1)
                known.learn(forecast, asked, Answer((), InputReport(18, 18, False), timings), latency_s, now_s)
    print(errors.__name__, refused, rightly / refused, admitted)
    assert refused > 500 and rightly >= 0.95 * refused
