"""Laws of the plan of a summary and of its cost, for any step times, parameters and time limits."""

from __future__ import annotations

from itertools import pairwise

from fake_summaries import WINDOW, extractive_manifest, generation, seq2seq_manifest, summary
from hypothesis import given
from hypothesis import strategies as st

from gateway.forecasting.forecaster import Forecast, Forecaster
from gateway.forecasting.load import QueueAhead
from gateway.model.manifest import GenerationRules
from gateway.model.messages import FinishReason
from gateway.model.request import RequestShape
from gateway.tasks import service_time_model
from gateway.tasks.decoding import HEADROOM, DecodingTimes, Wanted, leanest, plan, widths
from gateway.tasks.service_time import LEAST_SLOWDOWN, MOST_SLOWDOWN, ServiceTimeModel
from gateway.tasks.summarize import AbstractiveModel, LongText, SummarizeParameters, wanted_of

REASONS: tuple[FinishReason, ...] = ("stop", "length", "deadline")

rooms = st.one_of(st.floats(-1.0, 0.5), st.floats(0.0, 20.0), st.just(600.0))
seconds = st.floats(1e-5, 0.1)
percentiles = st.floats(50.0, 99.9)
lengths = st.one_of(st.none(), st.integers(1, 200))
parameters = st.builds(
    SummarizeParameters,
    max_new_tokens=lengths,
    min_new_tokens=st.one_of(st.none(), st.integers(0, 200)),
    num_beams=st.one_of(st.none(), st.integers(1, 16)),
    truncation=st.sampled_from(["chunk", "longest_first", "error"]),
)
wishes = st.builds(Wanted, st.integers(1, 16), st.integers(1, 300), st.floats(0.1, 400.0))


@st.composite
def times(draw: st.DrawFn) -> DecodingTimes:
    """Draw an encoder time and step times that grow with the width or stay equal."""
    first_s, per_row_s = draw(seconds), draw(st.one_of(st.just(0.0), seconds))
    return DecodingTimes(draw(seconds), lambda rows: first_s + per_row_s * (rows - 1))


@st.composite
def aheads(draw: st.DrawFn) -> QueueAhead:
    """Draw a queue, time-sliced or not."""
    return QueueAhead(draw(st.one_of(st.just(0.0), st.floats(0.0, 3.0))), draw(st.one_of(st.none(), st.integers(0, 6))))


def taught(residuals: list[float]) -> Forecaster:
    """Return a forecaster that has seen answers that took these multiples of their forecasts, idle and queued."""
    made = Forecaster(AbstractiveModel(seq2seq_manifest()))
    for times_forecast in residuals:
        for ahead in (QueueAhead(0.0), QueueAhead(0.2, 3)):
            forecast = made.forecast(RequestShape(((110,),), SummarizeParameters()), ahead, 95.0, 0.0, 600.0)
            made.learn_latency(forecast, times_forecast * forecast.latency_s, 0.0015, 0.0)
    return made


@given(times(), wishes, rooms, rooms)
def test_more_time_is_never_less(took: DecodingTimes, wanted: Wanted, one_s: float, other_s: float) -> None:
    """More time never gives a narrower search, nor a shorter one at an equal width."""
    less, more = (plan(took, wanted, available_s) for available_s in sorted((one_s, other_s)))
    assert more.beams >= less.beams
    assert more.beams > less.beams or more.max_new_tokens >= less.max_new_tokens


@given(times(), wishes, rooms)
def test_a_plan_is_within_what_is_wanted(took: DecodingTimes, wanted: Wanted, available_s: float) -> None:
    """A plan has at least one beam and one token, at most those asked for, and expects no more than it allows."""
    made = plan(took, wanted, available_s)
    assert 1 <= made.beams <= wanted.beams
    assert 1 <= made.max_new_tokens <= wanted.max_new_tokens
    assert 0 < made.expected_tokens <= made.max_new_tokens
    assert made.expected_s == took.encode_s + made.expected_tokens * took.step_s(made.beams)


@given(times(), wishes, rooms)
def test_what_fits_is_planned_to_fit(took: DecodingTimes, wanted: Wanted, available_s: float) -> None:
    """Where the leanest plan fits with headroom, the plan fits too and cuts none of the expected tokens."""
    lean = leanest(took, wanted)
    made = plan(took, wanted, available_s)
    if took.encode_s + HEADROOM * (lean.expected_s - took.encode_s) <= available_s:
        assert made.expected_s <= available_s * (1 + 1e-12)
        assert made.expected_tokens >= int(lean.expected_tokens)
    if made.beams > 1:
        assert made.expected_s <= available_s * (1 + 1e-12)


@given(times(), wishes)
def test_without_end_the_plan_is_what_is_wanted(took: DecodingTimes, wanted: Wanted) -> None:
    """With unlimited time the plan is as wide and long as asked for; the leanest plan never takes longer."""
    made, lean = plan(took, wanted, 1e6), leanest(took, wanted)
    assert (made.beams, made.max_new_tokens) == (wanted.beams, wanted.max_new_tokens)
    assert lean.expected_s <= made.expected_s
    assert lean.beams == 1 and lean.expected_tokens == made.expected_tokens


@given(st.integers(1, 64))
def test_widths_rise_from_one_to_the_most(most: int) -> None:
    """The widths to choose from rise from one beam to the largest and at most double up to eight beams."""
    chosen = widths(most)
    assert (chosen[0], chosen[-1]) == (1, most) and all(one < other for one, other in pairwise(chosen))
    assert all(other <= 2 * one for one, other in pairwise(chosen) if other <= 8)


@given(parameters, st.integers(1, 150), st.integers(0, 60), st.floats(0.5, 200.0))
def test_a_checkpoint_is_wanted_for_no_more_than_its_rules(
    asked: SummarizeParameters, most: int, least: int, expected: float
) -> None:
    """A client's limits never exceed the checkpoint's own, and the expected length stays within them."""
    rules = GenerationRules(
        decoder_start_token_id=0, eos_token_ids=(1,), max_new_tokens=most, min_new_tokens=least, num_beams=4
    )
    wanted = wanted_of(asked, rules, expected)
    assert wanted.max_new_tokens <= min(most, asked.max_new_tokens or most)
    assert wanted.expected_tokens <= wanted.max_new_tokens
    demanded = least if asked.min_new_tokens is None else asked.min_new_tokens
    assert wanted.expected_tokens >= min(expected, demanded, wanted.max_new_tokens)
    assert wanted.beams == (asked.num_beams or 4)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=4), st.integers(0, 4), st.integers(1, 1000), parameters)
def test_more_text_is_never_cheaper(tokens: list[int], at: int, more: int, wished: SummarizeParameters) -> None:
    """A longer text or a further one never lowers the least cost of a request."""
    costs: tuple[ServiceTimeModel, ...] = (
        service_time_model(seq2seq_manifest()),
        service_time_model(extractive_manifest("c", 0.001)),
    )
    grown = [n + more if place == at else n for place, n in enumerate(tokens)]
    for cost in costs:
        before = cost.service_times_s(tokens, wished, 600.0)[1]
        assert cost.service_times_s(grown, wished, 600.0)[1] >= before * (1 - 1e-9)
        assert cost.service_times_s((*tokens, more), wished, 600.0)[1] > before


@given(st.integers(0, 10_000), lengths, st.integers(1, 8), st.sampled_from(["chunk", "longest_first", "error"]), rooms)
def test_what_the_client_allows_at_most_never_costs_more(
    tokens: int, most: int | None, beams: int, truncation: LongText, available_s: float
) -> None:
    """A client's limit on tokens or beams never raises the cost of a request."""
    cost = service_time_model(seq2seq_manifest(num_beams=8))
    own = SummarizeParameters(truncation=truncation)
    limited = SummarizeParameters(max_new_tokens=most, num_beams=beams, truncation=truncation)
    for room in (available_s, 1e6):
        own_s, limited_s = (cost.service_times_s((tokens,), one, room) for one in (own, limited))
        assert limited_s[1] <= own_s[1] * (1 + 1e-9)
        assert room < 1e6 or limited_s[0] <= own_s[0] * (1 + 1e-9)


@given(
    st.lists(st.floats(0.0, 5.0), max_size=60),
    aheads(),
    percentiles,
    st.integers(0, 2 * WINDOW),
    parameters,
    rooms,
    rooms,
)
def test_more_budget_never_makes_a_checkpoint_unfit(
    seen: list[float],
    ahead: QueueAhead,
    percentile: float,
    tokens: int,
    wished: SummarizeParameters,
    one_s: float,
    other_s: float,
) -> None:
    """A checkpoint that fits a budget fits every larger one, although it then plans a wider search."""
    forecaster, asked = taught(seen), RequestShape(((tokens,),), wished)
    less_s, more_s = sorted((one_s, other_s))
    less, more = (forecaster.forecast(asked, ahead, percentile, 0.0, left_s) for left_s in (less_s, more_s))
    assert less.quantile_s > less_s or more.quantile_s <= more_s
    for forecast in (less, more):
        assert forecast.quantile_s >= forecast.idle_quantile_s * (1 - 1e-12)
        assert forecast.queueing_delay_s <= ahead.backlog_s
        assert forecast.latency_s >= forecast.queueing_delay_s + forecast.service_time_s


@given(st.lists(st.floats(0.0, 5.0), max_size=60), aheads(), percentiles, st.integers(0, 2 * WINDOW), parameters, rooms)
def test_a_wider_plan_is_taken_only_where_its_quantile_fits(
    seen: list[float],
    ahead: QueueAhead,
    percentile: float,
    tokens: int,
    wished: SummarizeParameters,
    available_s: float,
) -> None:
    """A plan wider than the leanest is forecast only if its quantile fits; the idle quantile is the leanest plan's."""
    forecaster, asked = taught(seen), RequestShape(((tokens,),), wished)
    forecast = forecaster.forecast(asked, ahead, percentile, 0.0, available_s)
    lean: Forecast = forecaster.forecast(asked, ahead, percentile, 0.0, -1e9)
    _, least_s = forecaster.model.service_times_s((tokens,), wished, available_s)
    assert forecast.idle_quantile_s == lean.idle_quantile_s and lean.service_time_s == least_s
    assert forecast.service_time_s >= least_s
    assert forecast.service_time_s == least_s or forecast.quantile_s <= available_s


@given(aheads(), st.floats(0.0, 10.0), st.floats(0.0, 10.0))
def test_who_takes_turns_waits_no_longer(ahead: QueueAhead, one_s: float, other_s: float) -> None:
    """Time slicing delays a request no longer than the backlog would, and a shorter one no longer than a longer one."""
    shorter, longer = (ahead.delay_s(service_s) for service_s in sorted((one_s, other_s)))
    assert 0.0 <= shorter <= longer <= ahead.backlog_s
    if ahead.sharing is None:
        assert shorter == ahead.backlog_s
    else:
        assert longer <= ahead.sharing * max(one_s, other_s)


@given(st.lists(st.tuples(st.integers(0, 128), st.integers(1, 128), st.floats(0.0, 9.0)), max_size=40))
def test_what_is_learnt_keeps_the_cost_sound(seen: list[tuple[int, int, float]]) -> None:
    """Whatever answers are learnt, the cost of a summary stays between the bounds of length and slowdown."""
    cost, plain = AbstractiveModel(seq2seq_manifest()), SummarizeParameters()
    shortest_s, _ = cost.service_times_s((110,), SummarizeParameters(max_new_tokens=1, num_beams=1), 600.0)
    longest_s, _ = cost.service_times_s((110,), SummarizeParameters(min_new_tokens=128), 600.0)
    for tokens, room, took_s in seen:
        for reason in REASONS:
            how = generation(reason, tokens, steps=tokens, max_new_tokens=room)
            cost.learn((110,), plain, summary(how, tokens=110, service_time_s=took_s))
    fully_s, lean_s = cost.service_times_s((110,), plain, 600.0)
    assert LEAST_SLOWDOWN * shortest_s <= lean_s * (1 + 1e-9)
    assert lean_s <= fully_s <= MOST_SLOWDOWN * longest_s * (1 + 1e-9)
