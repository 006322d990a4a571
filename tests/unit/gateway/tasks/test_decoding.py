"""The plan of a summary, case by case, and how a checkpoint that writes is forecast and learns."""

from __future__ import annotations

from collections import defaultdict

import pytest
from fake_summaries import SCRIBE, catalog, generation, manifests, seq2seq_manifest, summary
from fakes import EVEN, SWIFT
from msgspec.structs import replace

from gateway.forecasting.calibration import ENOUGH, MAX_AGE_S, WINDOW
from gateway.forecasting.forecaster import Forecaster, PooledCalibration
from gateway.forecasting.load import IDLE, LoadTracker, QueueAhead
from gateway.model.request import RequestShape
from gateway.router import served_checkpoints
from gateway.tasks.classify import ClassifyParameters
from gateway.tasks.decoding import DecodingTimes, Wanted, WritingTimes, plan, widths
from gateway.tasks.summarize import AbstractiveModel, SummarizeParameters

TIMES = DecodingTimes(0.100, lambda rows: 0.010 * rows)
WANTED = Wanted(beams=4, max_new_tokens=60, expected_tokens=20.0)
ASKED = RequestShape(((110,),), SummarizeParameters())
NO_END_S = 600.0
"""More time than any plan uses."""


def forecaster() -> Forecaster:
    """Return a forecaster that has learnt nothing yet."""
    return Forecaster(AbstractiveModel(seq2seq_manifest()))


@pytest.mark.parametrize(
    ("available_s", "beams", "max_new_tokens", "expected_s"),
    [
        (-1.0, 1, 1, 0.110),
        (0.100, 1, 1, 0.110),
        (0.205, 1, 10, 0.200),
        (0.305, 1, 20, 0.300),
        (0.695, 1, 59, 0.300),
        (0.705, 2, 30, 0.500),
        (1.305, 4, 30, 0.900),
        (9.0, 4, 60, 0.900),
    ],
)
def test_budget_goes_to_length_and_then_to_width(
    available_s: float, beams: int, max_new_tokens: int, expected_s: float
) -> None:
    """A plan adds beams once 1.5 times the expected tokens fit; time that is left over allows more tokens."""
    made = plan(TIMES, WANTED, available_s)
    assert (made.beams, made.max_new_tokens) == (beams, max_new_tokens)
    assert made.expected_s == pytest.approx(expected_s)


def test_no_headroom_is_kept_for_tokens_that_may_not_be_written() -> None:
    """A plan keeps no headroom where the most tokens that may be written fit."""
    short = Wanted(beams=4, max_new_tokens=20, expected_tokens=20.0)
    made = plan(TIMES, short, 0.905)
    assert (made.beams, made.max_new_tokens, made.expected_tokens) == (4, 20, 20.0)


@pytest.mark.parametrize(
    ("most", "chosen"), [(1, (1,)), (3, (1, 2, 3)), (4, (1, 2, 4)), (8, (1, 2, 4, 8)), (16, (1, 2, 4, 8, 16))]
)
def test_widths_are_those_profiled_and_the_most(most: int, chosen: tuple[int, ...]) -> None:
    """The widths to choose from double up to the largest, and include it."""
    assert widths(most) == chosen


def test_a_pace_stretches_reading_and_writing_alike() -> None:
    """A slowdown of two doubles the times of reading and writing, so twice the budget gives an equal plan."""
    times = WritingTimes.of(seq2seq_manifest())
    quiet, busy = times.for_text(100), times.for_text(100, slowdown=2.0)
    assert (busy.encode_s, busy.step_s(4)) == (2 * quiet.encode_s, 2 * quiet.step_s(4))
    one, other = plan(quiet, WANTED, 0.200), plan(busy, WANTED, 0.400)
    assert (one.beams, one.max_new_tokens) == (other.beams, other.max_new_tokens)


def test_a_checkpoint_that_writes_is_forecast_as_widely_as_fits() -> None:
    """A checkpoint that writes is forecast at its widest plan where that fits, else at its leanest."""
    new = forecaster()
    lavish, tight = (new.forecast(ASKED, IDLE, 95.0, 0.0, left_s) for left_s in (NO_END_S, 0.050))
    assert (lavish.service_time_s, tight.service_time_s) == pytest.approx(
        new.model.service_times_s((110,), ASKED.parameters, NO_END_S)
    )
    assert lavish.quantile_s > lavish.latency_s > tight.latency_s > tight.service_time_s
    assert lavish.idle_quantile_s == tight.idle_quantile_s == tight.quantile_s


def test_what_waits_in_a_row_takes_time_and_what_takes_turns_does_not() -> None:
    """A backlog leaves less time to write; time slicing instead multiplies the time by the number of texts."""
    new = forecaster()
    idle = new.forecast(ASKED, IDLE, 95.0, 0.0, 1.0)
    behind = new.forecast(ASKED, QueueAhead(0.6), 95.0, 0.0, 1.0)
    assert behind.queueing_delay_s == 0.6 and behind.service_time_s < idle.service_time_s
    between = new.forecast(ASKED, QueueAhead(60.0, sharing=1), 95.0, 0.0, 1.0)
    assert between.queueing_delay_s == between.service_time_s == idle.service_time_s
    alone = new.forecast(ASKED, QueueAhead(60.0, sharing=0), 95.0, 0.0, 1.0)
    assert alone.backlog_s == 60.0 and replace(alone, backlog_s=0.0) == idle


def test_a_checkpoint_that_is_always_cut_is_not_quick() -> None:
    """Answers that the deadline cut do not lower the forecast to the clients' budgets."""
    new = forecaster()
    before = new.forecast(ASKED, IDLE, 95.0, 0.0, 0.010)
    cut = summary(generation("deadline", 1, steps=0, lead=True), tokens=110, kept=0, service_time_s=0.0)
    for _ in range(WINDOW):
        forecast = new.forecast(ASKED, IDLE, 95.0, 0.0, 0.010)
        new.learn(forecast, ASKED, cut, 0.0015, 0.0)
    after = new.forecast(ASKED, IDLE, 95.0, 0.0, 0.010)
    assert after.quantile_s == pytest.approx(before.quantile_s, rel=0.02)  # the overhead has been learnt


def test_a_cut_that_came_late_counts_as_late() -> None:
    """A summary that was cut and yet came after its quantile raises the quantile."""
    new = forecaster()
    before = new.forecast(ASKED, IDLE, 95.0, 0.0, 0.010)
    for _ in range(ENOUGH):
        late = summary(generation("deadline", 40, steps=0), tokens=110, service_time_s=2.0)
        new.learn(before, ASKED, late, 2.0, 0.0)
    assert new.forecast(ASKED, IDLE, 95.0, 0.0, 0.010).quantile_s >= 1.9


def test_answers_in_time_make_the_forecast_surer() -> None:
    """After many answers that took what was forecast, the quantile is near the median."""
    new = forecaster()
    before = new.forecast(ASKED, IDLE, 95.0, 0.0, 0.010)
    for _ in range(ENOUGH):
        forecast = new.forecast(ASKED, IDLE, 95.0, 0.0, 0.010)
        answer = summary(generation("stop", 40, steps=0), tokens=110, service_time_s=forecast.service_time_s)
        new.learn(forecast, ASKED, answer, forecast.latency_s, 0.0)
    after = new.forecast(ASKED, IDLE, 95.0, 0.0, 0.010)
    assert after.quantile_s < before.quantile_s
    assert after.quantile_s == pytest.approx(after.latency_s, rel=0.01)
    later = new.forecast(ASKED, IDLE, 95.0, MAX_AGE_S + 1, 0.010)
    assert later.quantile_s == pytest.approx(before.quantile_s, rel=0.02)  # the overhead has been learnt


def test_kinds_do_not_stand_in_for_one_another() -> None:
    """Residuals of classifiers are shared among classifiers and change no forecast of a checkpoint that writes."""
    whole, load, pooled = catalog(), LoadTracker(), defaultdict[str, PooledCalibration](PooledCalibration)
    served = {
        name: one
        for task in whole.tasks
        for name, one in served_checkpoints(whole, task, manifests(), load, pooled).items()
    }
    scores = RequestShape(((8,),), ClassifyParameters())
    swift, even, scribe = (served[name].forecaster for name in (SWIFT, EVEN, SCRIBE))
    before = [one.forecast(of, IDLE, 95.0, 0.0, 0.010) for one, of in ((even, scores), (scribe, ASKED))]
    for _ in range(ENOUGH):
        forecast = swift.forecast(scores, IDLE, 95.0, 0.0, 1.0)
        swift.learn_latency(forecast, 10 * forecast.latency_s, 0.0015, 0.0)
    assert even.forecast(scores, IDLE, 95.0, 0.0, 0.010).quantile_s > 2 * before[0].quantile_s
    assert scribe.forecast(ASKED, IDLE, 95.0, 0.0, 0.010) == before[1]
