"""The oracle's bound on cases small enough to compute by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from gateway.model.tier import Tier
from loadtests.simulator.oracle.bound import Bound, oracle_bound
from loadtests.simulator.oracle.menu import menus
from loadtests.simulator.oracle.prices import Prices
from loadtests.workload.arrivals import Offered
from loadtests.workload.variants import SampledTimes, Variant

OVERHEAD_S = 0.001


@dataclass(frozen=True)
class PerToken:
    """A run takes a millisecond for each token of its longest text."""

    sigma: float = 0.0

    def median_s(self, batch: int, tokens: int) -> float:
        return tokens / 1000

    def noise(self, batch: int, chance: object) -> float:
        return 1.0


def variant(*by_batch_ms: float, quality: float = 90.0, task: str = "classify", domain: str | None = None) -> Variant:
    """A variant by its medians of batches of 1, 2, ..."""
    times = SampledTimes({batch: (ms / 1000,) for batch, ms in enumerate(by_batch_ms, 1)})
    return Variant(f"{task}-{quality}", task, quality, Tier.QUALITY, times, len(by_batch_ms), domain)


def request(at_ms: float, budget_ms: float, tokens: int = 20, texts: int = 1, task: str = "classify") -> Offered:
    """A request by its arrival and budget."""
    return Offered(0, task, at_ms / 1000, budget_ms / 1000, tokens, texts)


def bound(offered: Sequence[Offered], *variants: Variant, cores: int = 1, fastest: float = 1.0) -> Bound:
    """The bound in points of quality, with all requests counted."""
    return oracle_bound(offered, variants, cores, OVERHEAD_S, lambda _: True, fastest=fastest)


def costs_ms(offered: Sequence[Offered], of: Variant) -> list[float]:
    """The least time that each request takes of that variant."""
    found = menus(offered, (of,), OVERHEAD_S, lambda _: True, lambda _: 1.0).costs_s[:, 0]
    return [round(float(cost) * 1000, 6) for cost in found]


def test_nothing_offered_earns_nothing() -> None:
    """Without requests both bounds are 0, and they are as close as can be."""
    found = bound([], variant(4))
    assert (found.upper, found.lower, found.schedule) == (0.0, 0.0, ())


def test_what_cannot_be_in_time_earns_nothing() -> None:
    """A request that no variant can answer in time earns nothing; the overhead counts against its budget."""
    assert bound([request(0, 4.9)], variant(4)).upper == 0
    assert bound([request(0, 5)], variant(4)).lower == 90


def test_a_task_or_domain_without_a_variant_earns_nothing() -> None:
    """A request earns nothing without a variant of its task and domain."""
    assert bound([request(0, 50, task="summarize")], variant(4)).upper == 0
    assert bound([request(0, 50)], variant(4, domain="law")).upper == 0


def test_uncounted_requests_earn_nothing_but_keep_company() -> None:
    """An uncounted request earns nothing, but may share a batch and so lower the cost of others."""
    offered, of = [request(0, 50), request(0, 50)], variant(10, 12)
    found = oracle_bound(offered, (of,), 1, OVERHEAD_S, lambda r: r is offered[0])
    assert (round(found.upper, 3), found.lower) == (90, 90)
    assert menus(offered, (of,), OVERHEAD_S, lambda r: r is offered[0], lambda _: 1.0).costs_s == pytest.approx(0.006)


def test_a_batch_needs_company() -> None:
    """Requests share the cost of a batch only if they could be in one: both arrived, with enough time left."""
    of = variant(10, 12)
    assert costs_ms([request(0, 50), request(30, 50)], of) == [6, 6]
    assert costs_ms([request(0, 50), request(38, 50)], of) == [10, 10]
    assert costs_ms([request(0, 50), request(30, 11.5)], of) == [10, 10]
    assert costs_ms([request(0, 50)], of) == [10]


def test_a_dent_in_the_medians_cheapens_what_could_be_padded_to_it() -> None:
    """If three inputs were measured faster than two, a batch of two costs no more than one of three."""
    assert costs_ms([request(0, 50), request(0, 50)], variant(10, 30, 12)) == [6, 6]


def test_each_text_of_a_request_costs() -> None:
    """A request costs by its number of texts, and is planned as several batches if no batch holds them."""
    assert costs_ms([request(0, 50, texts=2)], variant(10, 12, 15)) == [12]
    assert costs_ms([request(0, 50, texts=2), request(0, 50)], variant(10, 12, 15)) == [10, 5]
    assert [run.ends_s for run in bound([request(0, 50, texts=3)], variant(10, 12)).schedule] == [pytest.approx(0.022)]


def test_a_lucky_run_fits_where_its_median_would_not() -> None:
    """A run luckier than its median raises only the upper bound; the lower bound uses medians."""
    found = bound([request(0, 4.9)], variant(4), fastest=0.9)
    assert (found.upper > 0, found.lower) == (True, 0)


def test_a_schedule_pays_for_the_longest_of_a_batch() -> None:
    """A batch takes as long as its longest text, so a short text with a tight budget is not put beside a long one."""
    variants = Variant("one", "classify", 90.0, Tier.QUALITY, PerToken(), 2)
    offered = [request(0, 12, tokens=10), request(0, 90, tokens=40)]
    found = oracle_bound(offered, (variants,), 1, OVERHEAD_S, lambda _: True)
    assert found.lower == 180
    assert all(run.ends_s + OVERHEAD_S <= member.deadline_s for run in found.schedule for member in run.members)


def test_cores_that_are_full_earn_no_more() -> None:
    """Full cores limit the bound: of ten requests of 10 ms within 31 ms, one core answers three and two cores six."""
    offered = [request(0, 31) for _ in range(10)]
    for cores in (1, 2):
        found = bound(offered, variant(10), cores=cores)
        assert found.lower == 270 * cores
        assert found.upper == pytest.approx(270 * cores, rel=0.02)


def test_worth_is_the_callers() -> None:
    """With several tasks, the caller defines the utility of an answer."""
    offered = [request(0, 50), request(0, 50, task="summarize")]
    variants = (variant(4), variant(4, quality=40.0, task="summarize"))
    found = oracle_bound(offered, variants, 1, OVERHEAD_S, lambda _: True, utility=lambda _: 1.0)
    assert found.lower == 2
    assert found.upper == pytest.approx(2)


def test_any_prices_prove_a_bound() -> None:
    """Any prices give a bound: a request pays the cheapest bin of its window, and each bin costs its price per core."""
    found = menus([request(0, 31)], (variant(10),), OVERHEAD_S, lambda _: True, lambda _: 1.0)
    free, dear = (Prices(0.0, 0.01, np.array([50.0, 20.0, each, 30.0])) for each in (0.0, 40.0))
    assert free.bound(found, cores=2) == pytest.approx(1.0 + 2 * 0.01 * 100)
    assert dear.bound(found, cores=2) == pytest.approx(1.0 - 0.01 * 20 + 2 * 0.01 * 140)


def test_a_request_larger_than_a_batch_may_be_run_at_once() -> None:
    """If a request has more texts than a batch may hold, the upper bound assumes one run of all of them."""
    times = SampledTimes({1: (0.010,), 2: (0.012,), 4: (0.016,)})  # two batches of two would take 24 ms
    of = Variant("one", "classify", 90.0, Tier.QUALITY, times, 2)
    assert costs_ms([request(0, 50, texts=2)], of) == [12]
    assert costs_ms([request(0, 50, texts=4)], of) == [16]
