"""Laws of every baseline: no request is lost or runs twice, batches keep their limits, and work continues."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_baselines import TASK, played, setting_of, three
from tried import tried

from loadtests.simulator.policies.batching import Profile, by_deadline
from loadtests.simulator.policies.observed_load import BudgetClasses
from loadtests.simulator.policies.registry import BASELINES, statics
from loadtests.workload.arrivals import Fate, Offered

LARGEST = 4
VARIANTS = {more: three(more, max_batch=LARGEST) for more in (0.1, 0.8)}
RULES = {**BASELINES, **statics(three())}


@st.composite
def requests(draw: st.DrawFn) -> list[Offered]:
    """Up to 40 requests: some at once, some hopeless, some with more texts than a batch may have."""
    rows = st.tuples(
        st.sampled_from([0.0, 0.0, 0.003, 0.02, 0.5]),
        st.sampled_from([0.0, 0.003, 0.02, 0.06, 0.3, 4.0]),
        st.sampled_from([8, 64, 300]),
        st.sampled_from([1, 1, 1, 2, LARGEST, LARGEST + 3]),
    )
    now_s, offered = 0.0, []
    for sequence, (gap_s, budget_s, tokens, texts) in enumerate(draw(st.lists(rows, min_size=1, max_size=40))):
        now_s += gap_s
        offered.append(Offered(sequence, TASK, now_s, budget_s, tokens, texts))
    return offered


@pytest.mark.parametrize("name", RULES)
@tried(0.4)
@given(offered=requests(), cores=st.integers(1, 3), more=st.sampled_from(sorted(VARIANTS)))
def test_every_request_ends_once_and_every_batch_keeps_its_limit(
    name: str, offered: list[Offered], cores: int, more: float
) -> None:
    """Every request ends once and every batch keeps its limit; a rule with waiting requests never stops."""
    watched = played(RULES[name], setting_of(40.0, VARIANTS[more], cores, most_tried=100), offered)
    assert not watched.held
    assert all(request.fate is not Fate.OPEN for request in offered)
    assert watched.under_way == 0


@pytest.mark.parametrize("name", RULES)
def test_one_that_comes_alone_with_time_enough_is_never_dropped(name: str) -> None:
    """A request that arrives alone with a budget of five seconds is answered in time by every rule."""
    offered = [Offered(place, TASK, place * 6.0, 5.0, 64) for place in range(5)]
    played(RULES[name], setting_of(40.0, most_tried=100), offered)
    assert [request.fate for request in offered] == [Fate.IN_TIME] * 5


@tried(0.4)
@given(offered=requests(), available_s=st.floats(0.0, 0.5), most=st.integers(1, 6))
def test_a_batch_with_companions_keeps_its_room_and_its_size(
    offered: list[Offered], available_s: float, most: int
) -> None:
    """A batch of several requests keeps its size and its time; only its first request may exceed them."""
    profile = Profile(setting_of(40.0, VARIANTS[0.8]))
    variant = VARIANTS[0.8][0]
    members = profile.filled(variant, offered, available_s, most)
    inputs = sum(request.texts for request in members)
    assert members[0] is offered[0]
    if len(members) > 1:
        assert inputs <= min(most, LARGEST)
        assert profile.p95_s(variant, inputs, max(request.tokens for request in members)) <= available_s


@tried(0.4)
@given(offered=requests(), window=st.integers(1, 8))
def test_only_what_leaves_no_time_for_company_is_passed_over(offered: list[Offered], window: int) -> None:
    """Early drop passes over a request only if it leaves no time for a whole window that waits behind it."""
    profile, variant, now_s = Profile(setting_of(40.0, VARIANTS[0.1])), VARIANTS[0.1][0], offered[-1].arrived_s
    ordered = sorted(offered, key=by_deadline)
    served = profile.after_early_drop(variant, ordered, now_s, window)
    passed = ordered[: len(ordered) - len(served)]
    assert [*passed, *served] == ordered
    if passed:
        assert len(served) >= window
        assert all(profile.p95_s(variant, window, one.tokens) > profile.available_s(one, now_s) for one in passed)


@given(classes=st.integers(1, 8), rate_per_s=st.floats(0.1, 1000.0))
def test_classes_of_budgets_share_out_the_load(classes: int, rate_per_s: float) -> None:
    """Budget classes share the expected load evenly, and each knows the smallest budget in it."""
    setting = setting_of(rate_per_s)
    of = BudgetClasses(setting, classes)
    assert sum(of.expected_per_s) == pytest.approx(rate_per_s)
    assert max(of.expected_per_s) == pytest.approx(rate_per_s / classes, rel=0.05)
    for budget_s in setting.budgets_s:
        place = of.of(Offered(0, TASK, 0.0, budget_s, 64))
        assert of.least_s[place] <= budget_s - setting.overhead_s + 1e-12
