"""Laws of the division of a batch into runs: nothing is lost, no limit is passed, and no other division is faster."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.model.profile import LatencyProfile
from gateway.tasks.service_time import LARGEST_RUN, MOST_PADDED_TOKENS, RememberedMedians, runs_of

lengths_given = st.lists(st.integers(0, 600) | st.sampled_from([8, 8, 64, 3_000]), max_size=40)
few_lengths = st.lists(st.integers(0, 600) | st.sampled_from([8, 8, 64, 1_500]), max_size=8)


@st.composite
def profiles(draw: st.DrawFn) -> LatencyProfile:
    """Draw any grid of positive medians; a longer input or a larger batch may even be faster."""
    durations = st.floats(0.001, 0.5)
    medians = draw(st.tuples(*[st.tuples(durations, durations, durations)] * 3))
    return LatencyProfile((1, 2, 8), (1, 16, 64), medians, sigma=0.2)


def total_s(runs: Sequence[Sequence[int]], lengths: Sequence[int], profile: LatencyProfile) -> float:
    """The median time of these runs, one after the other."""
    return math.fsum(profile.median_s(len(run), max(lengths[place] for place in run)) for run in runs)


def divisions(order: list[int]) -> Iterator[list[list[int]]]:
    """Every division of a sequence into parts of neighbours."""
    inner = range(1, len(order))
    for count in range(len(order)):
        for cuts in combinations(inner, count):
            yield [order[begin:end] for begin, end in pairwise((0, *cuts, len(order)))]


def within_limits(run: Sequence[int], lengths: Sequence[int]) -> bool:
    """True if the engine may run these inputs together."""
    longest = max(lengths[place] for place in run)
    return len(run) == 1 or (len(run) <= LARGEST_RUN and len(run) * longest <= MOST_PADDED_TOKENS)


@given(lengths_given, profiles())
def test_every_input_is_in_one_run(lengths: list[int], profile: LatencyProfile) -> None:
    """Every input is in exactly one run, and none of the runs is empty."""
    runs = runs_of(lengths, profile.median_s)
    assert sorted(place for run in runs for place in run) == list(range(len(lengths)))
    assert all(runs)


@given(lengths_given, profiles())
def test_no_run_passes_the_limits(lengths: list[int], profile: LatencyProfile) -> None:
    """A run of several has at most `LARGEST_RUN` inputs and `MOST_PADDED_TOKENS` tokens, padding included."""
    assert all(within_limits(run, lengths) for run in runs_of(lengths, profile.median_s))


@given(lengths_given, profiles())
def test_runs_are_of_neighbours_in_order_of_length(lengths: list[int], profile: LatencyProfile) -> None:
    """Read one after the other, the runs give the inputs from the shortest to the longest, so padding is little."""
    in_order = [lengths[place] for run in runs_of(lengths, profile.median_s) for place in run]
    assert in_order == sorted(lengths)


@given(lengths_given, profiles())
def test_no_batch_is_slower_than_its_inputs_one_by_one(lengths: list[int], profile: LatencyProfile) -> None:
    """By the profile, the runs take no longer than the inputs would one by one."""
    one_by_one = [[place] for place in range(len(lengths))]
    least_s = total_s(runs_of(lengths, profile.median_s), lengths, profile)
    assert least_s <= total_s(one_by_one, lengths, profile) + 1e-9


@given(few_lengths, profiles())
def test_no_division_into_neighbours_is_faster(lengths: list[int], profile: LatencyProfile) -> None:
    """Of all divisions into neighbours in order of length that keep the limits, none takes less time."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    allowed = [runs for runs in divisions(order) if all(within_limits(run, lengths) for run in runs)]
    least_s = min((total_s(runs, lengths, profile) for runs in allowed), default=0.0)
    assert total_s(runs_of(lengths, profile.median_s), lengths, profile) <= least_s + 1e-9


@given(st.integers(1, 100), st.integers(1, 600), st.floats(0.001, 0.1), st.floats(0.0, 0.09))
def test_equal_inputs_run_together_where_that_pays(inputs: int, tokens: int, one_s: float, fixed_s: float) -> None:
    """Where a further input costs less than one alone, equal inputs run in the fewest runs that the limits allow."""
    runs = runs_of([tokens] * inputs, lambda batch, tokens: 0.001 + fixed_s + one_s * batch)
    most = max(1, min(LARGEST_RUN, MOST_PADDED_TOKENS // tokens))
    assert len(runs) == math.ceil(inputs / most)


@given(st.integers(1, LARGEST_RUN), st.sampled_from([0.5, 1.0, 2.0]))
def test_where_batching_costs_nothing_and_gains_nothing_there_is_one_run(inputs: int, one_s: float) -> None:
    """Equal inputs whose run takes exactly as long as they would one by one are one run, which costs less to send."""
    assert len(runs_of([8] * inputs, lambda batch, tokens: one_s * batch)) == 1


@given(lengths_given, st.randoms(use_true_random=False), profiles())
def test_the_order_of_a_batch_does_not_matter(
    lengths: list[int], chance: random.Random, profile: LatencyProfile
) -> None:
    """A batch in another order has runs of equal lengths."""
    turned = chance.sample(lengths, len(lengths))
    own = [[lengths[place] for place in run] for run in runs_of(lengths, profile.median_s)]
    assert [[turned[place] for place in run] for run in runs_of(turned, profile.median_s)] == own


@given(lengths_given, profiles())
def test_remembered_medians_are_those_of_the_profile(lengths: list[int], profile: LatencyProfile) -> None:
    """Remembered medians give the same runs, the first time and again."""
    medians = RememberedMedians(profile)
    for _ in range(2):
        assert runs_of(lengths, medians.median_s) == runs_of(lengths, profile.median_s)
