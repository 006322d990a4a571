"""The forecast: exact where the profile was measured, interpolated between, and improved by every answer."""

from __future__ import annotations

import pytest
from fakes import cell, latency_profile, profile_document
from hypothesis import given
from hypothesis import strategies as st

from gateway.forecasting.calibration import ENOUGH, MAX_AGE_S, WINDOW
from gateway.forecasting.forecaster import Forecaster, PooledCalibration
from gateway.forecasting.load import IDLE, QueueAhead
from gateway.model.messages import Answer, Generation, InputReport, ReplicaTimings
from gateway.model.profile import LatencyProfile, LoneCell, LoneDocument, LoneRuns, ProfileDocument
from gateway.model.request import RequestShape
from gateway.tasks.classify import ClassifyParameters
from gateway.tasks.service_time import BatchedModel

GRID = {(1, 16): 0.010, (1, 64): 0.030, (8, 16): 0.050, (8, 64): 0.200}


def profile(cells: dict[tuple[int, int], float]) -> LatencyProfile:
    """Return the profile with these medians by (batch, tokens)."""
    made = tuple(cell(batch, tokens, p50_s) for (batch, tokens), p50_s in cells.items())
    return LatencyProfile.from_document(ProfileDocument(threads=1, measured_on="nothing", cells=made))


def forecaster(median_s: float = 0.010, pooled: PooledCalibration | None = None) -> Forecaster:
    """Return a forecaster that has learnt nothing yet."""
    return Forecaster(BatchedModel(latency_profile(median_s), 64), pooled)


def asked(*tokens: int) -> RequestShape:
    """Return the shape of a request to classify texts of these lengths, in tokens of the one tokenizer."""
    return RequestShape((tokens,), ClassifyParameters())


SHORT, LONG = asked(8), asked(29)
LONE = LoneRuns(2, (8, 64), (0.8, 0.6))
"""A lone run of up to 8 tokens takes four fifths of the usual time, one of 64 and more three fifths."""
NO_END_S = 600.0
"""The largest budget."""


def test_a_lone_run_takes_its_share_of_the_usual_time() -> None:
    """The share is linear between measured lengths, and 1 where it does not pay; lone runs that never pay are none."""
    assert [LONE.share(tokens) for tokens in (1, 8, 36, 64, 999)] == pytest.approx([0.8, 0.8, 0.7, 0.6, 0.6])
    cells = [LoneCell(tokens=8, share=1.1), LoneCell(tokens=64, share=0.7)]
    document = profile_document(0.010).model_copy(update={"lone": LoneDocument(threads=2, cells=tuple(cells))})
    lone = LoneRuns.from_document(document)
    assert lone is not None and [lone.share(8), lone.share(36), lone.share(64)] == pytest.approx([1.0, 0.9, 0.7])
    dear = LoneDocument(threads=2, cells=(LoneCell(tokens=8, share=0.95),))
    assert LoneRuns.from_document(document.model_copy(update={"lone": dear})) is None
    assert LoneRuns.from_document(profile_document(0.010)) is None


def test_a_lone_run_is_forecast_by_its_share_and_its_own_errors() -> None:
    """A request with the node for itself takes its share of the service time; bad errors bring the usual run back."""
    of = Forecaster(BatchedModel(latency_profile(0.010), 64), lone=LONE)
    usual = of.forecast(SHORT, IDLE, 95, 0.0, NO_END_S)
    lone = of.hurried(usual, SHORT, 0.0, NO_END_S)
    assert lone.lone and lone.service_time_s == pytest.approx(0.8 * usual.service_time_s)
    assert lone.quantile_s < usual.quantile_s and lone.cost_s == usual.cost_s
    assert forecaster().hurried(usual, SHORT, 0.0, NO_END_S) is usual, "this one has no lone runs"
    for at in range(ENOUGH):
        of.learn_latency(lone, 3 * lone.latency_s, 0.001, float(at))
    again = of.forecast(SHORT, IDLE, 95, float(ENOUGH), NO_END_S)
    assert again.service_time_s == usual.service_time_s, "nothing is learnt of usual runs"
    assert of.hurried(again, SHORT, float(ENOUGH), NO_END_S) is again
    late_s = ENOUGH + MAX_AGE_S
    after = of.forecast(SHORT, IDLE, 95, late_s, NO_END_S)
    assert of.hurried(after, SHORT, late_s, NO_END_S).lone, "they are forgotten"


@pytest.mark.parametrize("slowed", [1.3, 2.0])
def test_a_seldom_client_is_not_promised_what_lone_runs_no_longer_keep(slowed: float) -> None:
    """With an answer every 3 s, too few for errors of their own, how slow lone runs are is learnt all the same."""
    of = Forecaster(BatchedModel(latency_profile(0.010), 64), lone=LONE)
    missed = 0
    for number in range(60):
        now_s = 3.0 * number
        usual = of.forecast(SHORT, IDLE, 95, now_s, NO_END_S)
        told = of.hurried(usual, SHORT, now_s, NO_END_S)
        took_s = slowed * 0.8 * 0.005 if told.lone else 0.005
        missed += number >= 20 and took_s + 0.001 > told.quantile_s
        timings = ReplicaTimings(0.0, took_s, took_s, 1)
        of.learn(told, SHORT, Answer((), InputReport(8, 8, False), timings), took_s + 0.001, now_s)
    assert missed <= 2
    assert of.model.slowdown.value == 1.0 or slowed == 2.0, "lone runs teach nothing of usual ones"


def test_a_lone_run_is_tried_while_little_is_known_of_them() -> None:
    """Where usual runs are known well, a lone one has the wider quantile at first; it is tried where that fits."""
    of = Forecaster(BatchedModel(latency_profile(0.010), 64), lone=LONE)
    plain = of.forecast(SHORT, IDLE, 95, 0.0, NO_END_S)
    for at in range(ENOUGH):
        of.learn_latency(plain, 0.7 * plain.latency_s, 0.001, at / 1000)
    usual = of.forecast(SHORT, IDLE, 95, 1.0, NO_END_S)
    tried = of.hurried(usual, SHORT, 1.0, NO_END_S)
    assert tried.lone and tried.quantile_s > usual.quantile_s
    assert of.hurried(usual, SHORT, 1.0, (tried.quantile_s + usual.quantile_s) / 2) is usual


def test_a_profile_is_exact_where_it_was_measured() -> None:
    """A profile returns the measured median at each of its cells, in whatever order they are listed."""
    for measured in (GRID, dict(reversed(GRID.items()))):
        read = profile(measured)
        assert all(read.median_s(*place) == pytest.approx(median_s) for place, median_s in GRID.items())
    assert profile(GRID).batches[-1] == 8


def test_a_profile_is_linear_between_cells() -> None:
    """A profile is linear between its cells along both axes."""
    read = profile(GRID)
    assert read.median_s(1, 40) == pytest.approx(0.020)
    assert profile({**GRID, (2, 16): 0.012, (2, 64): 0.05}).median_s(5, 16) == pytest.approx((0.012 + 0.050) / 2)
    assert read.median_s(4, 40) == pytest.approx(0.020 + (0.125 - 0.020) * 3 / 7)


def test_a_profile_goes_on_past_its_ends() -> None:
    """A profile is constant below its first cells and continues the slope of its last cells beyond them."""
    read = profile(GRID)
    assert read.median_s(1, 1) == pytest.approx(0.010)
    assert read.median_s(1, 112) == pytest.approx(0.050)
    assert read.median_s(15, 16) == pytest.approx(0.090)
    alone = profile({(1, 16): 0.010})
    assert alone.median_s(1, 32) == pytest.approx(0.020)
    assert alone.median_s(4, 16) == pytest.approx(0.040)


def test_a_profile_never_falls_past_its_ends() -> None:
    """A profile never falls beyond its last cells, even where noise made those fall."""
    falling = profile({(1, 16): 0.010, (1, 64): 0.009, (8, 16): 0.008, (8, 64): 0.009})
    assert falling.median_s(1, 512) == pytest.approx(0.009)
    assert falling.median_s(64, 16) == pytest.approx(0.008)
    assert falling.median_s(1, 40) == pytest.approx(0.0095)


def test_a_profile_with_a_hole_is_refused() -> None:
    """A profile that lacks a cell is refused, and the message names the cell."""
    with pytest.raises(ValueError, match=r"\(8, 64\)"):
        profile({place: median_s for place, median_s in GRID.items() if place != (8, 64)})


def test_the_spread_is_never_negative() -> None:
    """A cell whose p95 is below its median counts as having no spread."""
    document = ProfileDocument(threads=1, measured_on="nothing", cells=(cell(1, 16, 0.010, 0.009),))
    assert LatencyProfile.from_document(document).sigma == 0.0


def test_a_new_forecaster_forecasts_the_profile() -> None:
    """Before any answer, the forecast is the profile's median plus the queueing delay and the overhead."""
    forecast = forecaster().forecast(SHORT, QueueAhead(0.5), percentile=95.0, now_s=0.0, remaining_s=NO_END_S)
    assert forecast.service_time_s == pytest.approx(0.010)
    assert forecast.queueing_delay_s == 0.5
    assert 0.510 < forecast.latency_s < 0.520
    assert forecast.quantile_s > forecast.latency_s > forecast.idle_quantile_s > forecast.service_time_s


def test_old_errors_are_forgotten() -> None:
    """Residuals older than `MAX_AGE_S` are forgotten, and the forecast returns to the profile."""
    new = forecaster()
    fresh = new.forecast(SHORT, IDLE, 95.0, 0.0, NO_END_S)
    for _ in range(WINDOW):
        new.learn_latency(fresh, latency_s=1.0, overhead_s=0.001, now_s=0.0)
    assert new.forecast(SHORT, IDLE, 95.0, MAX_AGE_S, NO_END_S).quantile_s > 0.9
    after = new.forecast(SHORT, IDLE, 95.0, MAX_AGE_S + 0.1, NO_END_S)
    assert after.quantile_s == pytest.approx(fresh.quantile_s, rel=0.1)


def test_a_steady_slowness_is_learnt_within_a_window() -> None:
    """Answers that all take twice the forecast raise the quantile to at least what they took."""
    new = forecaster()
    for second in range(ENOUGH):
        forecast = new.forecast(SHORT, IDLE, 95.0, second * 0.1, NO_END_S)
        new.learn_latency(forecast, latency_s=0.030, overhead_s=0.002, now_s=second * 0.1)
    assert new.forecast(SHORT, IDLE, 95.0, 5.0, NO_END_S).quantile_s >= 0.029


@given(
    ratios=st.lists(st.floats(0.01, 20.0), min_size=1, max_size=8),
    percentile=st.sampled_from([50.0, 75.0, 95.0, 99.0]),
    backlog_s=st.sampled_from([0.0, 0.005, 0.5]),
    remaining_s=st.sampled_from([0.001, 0.02, NO_END_S]),
)
def test_the_median_is_between_the_optimistic_forecast_and_the_quantile(
    ratios: list[float], percentile: float, backlog_s: float, remaining_s: float
) -> None:
    """However far answers are from the profile, least, median and quantile are in that order."""
    new, ahead = Forecaster(BatchedModel(latency_profile(0.010), 64), lone=LONE), QueueAhead(backlog_s)
    for at in range(ENOUGH + 8):
        for waits in (ahead, IDLE):
            met = new.forecast(SHORT, waits, percentile, 0.0, remaining_s)
            assert met.least_s <= met.median_s <= met.quantile_s
            quick = new.hurried(met, SHORT, 0.0, remaining_s)
            assert quick.least_s <= quick.median_s <= quick.quantile_s
            new.learn_latency(met, ratios[at % len(ratios)] * met.latency_s, 0.001, 0.0)


def test_what_takes_longer_than_the_profile_raises_the_median() -> None:
    """Once all answers take twice the profile's time, clients are told of no median below that."""
    new = forecaster()
    for at in range(ENOUGH):
        met = new.forecast(SHORT, IDLE, 95.0, 0.1 * at, NO_END_S)
        assert met.median_s == met.latency_s
        new.learn_latency(met, 2 * met.latency_s, 0.001, 0.1 * at)
    met = new.forecast(SHORT, IDLE, 95.0, 0.1 * ENOUGH, NO_END_S)
    assert met.median_s == pytest.approx(2 * met.latency_s, rel=0.05)


def test_one_freak_does_not_spoil_the_overhead() -> None:
    """One extreme answer raises the forecast overhead by at most half."""
    new = forecaster()
    before = new.forecast(SHORT, IDLE, 95.0, 0.0, NO_END_S)
    new.learn_latency(before, latency_s=60.0, overhead_s=60.0, now_s=0.0)
    after = new.forecast(SHORT, IDLE, 95.0, 0.0, NO_END_S)
    assert after.latency_s - after.service_time_s <= 1.5 * (before.latency_s - before.service_time_s)


def test_the_overhead_finds_back() -> None:
    """A negative overhead counts as 0, and the forecast then follows later overheads again."""
    new = forecaster()
    first = new.forecast(SHORT, IDLE, 95.0, 0.0, NO_END_S)

    def overhead_s() -> float:
        now = new.forecast(SHORT, IDLE, 50.0, 1000.0, NO_END_S)
        return now.latency_s - now.service_time_s

    for seen_s, times, at_most_s in ((-0.001, 200, 0.0015), (0.0, 2000, 0.0015), (0.002, 200, 0.002)):
        for _ in range(times):
            new.learn_latency(first, 0.010 + seen_s, seen_s, 1000.0)
            assert 0.0 <= overhead_s() <= at_most_s
    assert overhead_s() == pytest.approx(0.002, rel=0.01)


def test_an_overhead_that_nobody_confirms_is_forgotten() -> None:
    """A minute after the last answer of any checkpoint the overhead is the first guess, and no sooner."""
    around = PooledCalibration()
    one, other = forecaster(pooled=around), forecaster(pooled=around)
    first = one.forecast(SHORT, IDLE, 95.0, 0.0, NO_END_S)
    for now_s, teacher in ((0.0, one), (MAX_AGE_S / 2, other)):
        for _ in range(100):
            teacher.learn_latency(first, 0.3, 0.29, now_s)
    high_s = around.overhead_s
    for now_s, expected_s in ((1.1 * MAX_AGE_S, high_s), (1.4 * MAX_AGE_S, high_s), (1.6 * MAX_AGE_S, 0.0015)):
        assert one.forecast(SHORT, IDLE, 95.0, now_s, NO_END_S).latency_s - 0.010 == pytest.approx(
            expected_s, abs=0.006
        )
    assert around.overhead_s == 0.0015 < high_s


def test_an_overload_is_not_held_against_the_idle_gateway_after_it() -> None:
    """Residuals of queued requests change the forecasts behind a queue, and not those of an idle gateway."""
    known = forecaster()
    calm = known.forecast(LONG, IDLE, 95, 0.0, NO_END_S)
    behind = known.forecast(LONG, QueueAhead(0.050), 95, 0.0, NO_END_S)
    for _ in range(WINDOW):
        known.learn_latency(behind, 10 * behind.latency_s, 0.0015, 0.0)
    assert known.forecast(LONG, IDLE, 95, 0.0, NO_END_S).quantile_s == pytest.approx(calm.quantile_s, rel=0.01)
    assert known.forecast(LONG, QueueAhead(0.050), 95, 0.0, NO_END_S).quantile_s > 5 * behind.quantile_s


def test_a_checkpoint_that_is_not_chosen_follows_what_the_others_meet() -> None:
    """The pooled calibration keeps the faster of two checkpoints faster, whichever of them answers."""
    around = PooledCalibration()
    slow = forecaster(0.010, around)
    fast = forecaster(0.005, around)
    hard = fast.forecast(LONG, IDLE, 95, 0.0, NO_END_S)
    for _ in range(WINDOW):
        fast.learn_latency(hard, 10 * hard.latency_s, 0.020, 0.0)
    later_s = MAX_AGE_S + 1
    for _ in range(WINDOW):
        seen = slow.forecast(LONG, IDLE, 95, later_s, NO_END_S)
        slow.learn_latency(seen, seen.latency_s, 0.0015, later_s)
    now_fast, now_slow = (one.forecast(LONG, IDLE, 95, later_s, NO_END_S) for one in (fast, slow))
    assert now_fast.quantile_s < now_slow.quantile_s


def test_what_runs_with_others_takes_as_long_as_the_run_and_costs_its_share() -> None:
    """A text in a batch of four takes the time of the batch and costs a quarter of it, on each core in use."""
    alone = forecaster().forecast(SHORT, IDLE, 95.0, 0.0, NO_END_S)
    among = forecaster().forecast(SHORT, QueueAhead(0.0, None, 3), 95.0, 0.0, NO_END_S)
    assert among.service_time_s == pytest.approx(4 * alone.service_time_s)
    assert (alone.cost_s, among.cost_s) == pytest.approx((0.010, 0.010))
    two = asked(8, 8)
    share = forecaster().forecast(two, QueueAhead(0.0, None, 2), 95.0, 0.0, NO_END_S)
    assert share.cost_s == pytest.approx(share.service_time_s / 2)
    wide = Forecaster(BatchedModel(latency_profile(0.010), 64), cores=4)
    assert wide.forecast(SHORT, IDLE, 95.0, 0.0, NO_END_S).cost_s == pytest.approx(0.040)


def test_a_forecast_bears_what_it_was_asked_for() -> None:
    """A forecast contains its percentile and backlog, and its optimistic value is below its median and quantile."""
    forecast = forecaster().forecast(SHORT, QueueAhead(0.5), 80.0, 0.0, NO_END_S)
    assert (forecast.percentile, forecast.backlog_s) == (80.0, 0.5)
    assert forecast.least_s < forecast.latency_s < forecast.quantile_s
    quick = forecaster().forecast(SHORT, IDLE, 80.0, 0.0, NO_END_S)
    assert quick.least_s < quick.service_time_s + 0.0015 and quick.least_s < forecast.least_s


def test_what_expired_counts_as_late() -> None:
    """Requests that expire after a long wait raise the forecast."""
    known = forecaster()
    for number in range(ENOUGH):
        forecast = known.forecast(SHORT, IDLE, 95.0, 0.1 * number, NO_END_S)
        known.learn_expired(forecast, 0.200, 0.1 * number)
    assert known.forecast(SHORT, IDLE, 95.0, 5.0, NO_END_S).quantile_s >= 0.199


def test_what_expired_early_may_have_taken_long() -> None:
    """Requests that expire after a short wait do not lower the forecast to that wait."""
    known = forecaster()
    first = known.forecast(SHORT, IDLE, 50.0, 0.0, NO_END_S)
    for number in range(60):
        known.learn_latency(first, 0.010 + 0.0005 * number, 0.0015, 0.0)
    for _ in range(60):
        known.learn_expired(first, 0.012, 0.0)
    assert known.forecast(SHORT, IDLE, 50.0, 0.0, NO_END_S).quantile_s > 0.020


def test_a_machine_that_was_slow_is_taken_at_its_profile_when_nothing_is_heard() -> None:
    """A learnt slowdown is forgotten with its residuals, since a checkpoint that is not chosen cannot show recovery."""
    known = forecaster()
    before = known.forecast(SHORT, IDLE, 95.0, 0.0, NO_END_S)
    slow = Answer((), InputReport(8, 8, False), ReplicaTimings(0.0, 0.040, 0.040, 1))
    for number in range(WINDOW):
        known.learn(known.forecast(SHORT, IDLE, 95.0, 0.0, NO_END_S), SHORT, slow, 0.0415, 0.001 * number)
    learnt_s = 0.001 * (WINDOW - 1)
    held = known.forecast(SHORT, IDLE, 95.0, learnt_s + MAX_AGE_S, NO_END_S)
    assert held.service_time_s == pytest.approx(4 * before.service_time_s, rel=0.01)
    after = known.forecast(SHORT, IDLE, 95.0, learnt_s + MAX_AGE_S + 0.1, NO_END_S)
    assert after.service_time_s == before.service_time_s


def test_nothing_is_learnt_from_a_text_that_went_along_with_another() -> None:
    """Its time says nothing of others: they would seem to be forecast too late."""
    of = forecaster()
    before = of.forecast(SHORT, IDLE, 95, 0.0, NO_END_S)
    for number in range(ENOUGH):
        followed = Generation("stop", 9, 9, 1, 40, 1, 1.0, followed=True)
        answer = Answer((), InputReport(8, 8, False), ReplicaTimings(0.0, 0.0001, 0.0001, 1), (followed,))
        of.learn(before, SHORT, answer, 0.0002, float(number))
        of.learn_service(before, SHORT, answer)
    assert of.forecast(SHORT, IDLE, 95, float(ENOUGH), NO_END_S) == before
