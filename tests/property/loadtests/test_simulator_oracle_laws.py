"""Laws of the oracle's bound, compared with every possible plan for a few requests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tried import tried

from gateway.model.tier import Tier
from loadtests.simulator.oracle.bound import Bound, oracle_bound
from loadtests.simulator.oracle.menu import SparseTable, menus
from loadtests.simulator.oracle.schedule import PlannedRun
from loadtests.simulator.world import World
from loadtests.workload.arrivals import Fate, Offered
from loadtests.workload.variants import SampledTimes, Variant

OVERHEAD_S = 0.001


@dataclass(frozen=True)
class Padded:
    """Medians by batch size times a factor for the length, for any batch sizes, dents included."""

    by_batch_s: tuple[float, ...]
    slope: float
    sigma: float = 0.0

    def median_s(self, batch: int, tokens: int) -> float:
        return self.by_batch_s[batch - 1] * (1 + self.slope * tokens)

    def noise(self, batch: int, chance: object) -> float:
        return 1.0


times = st.builds(
    Padded,
    st.lists(st.sampled_from([0.003, 0.004, 0.006, 0.01, 0.017]), min_size=1, max_size=4).map(tuple),
    st.sampled_from([0.0, 0.1]),
)


@st.composite
def catalogs(draw: st.DrawFn) -> tuple[Variant, ...]:
    """Two variants of one task; the second may know one domain only."""
    made = []
    for name, quality, domains in (("good", 90.0, [None]), ("fair", 60.0, [None, "law"])):
        of = draw(times)
        domain = draw(st.sampled_from(domains))
        made.append(Variant(name, "classify", quality, Tier.QUALITY, of, len(of.by_batch_s), domain))
    return tuple(made)


requests = st.lists(
    st.builds(
        Offered,
        sequence=st.just(0),
        task=st.just("classify"),
        arrived_s=st.integers(0, 30).map(lambda ms: ms / 1000),
        budget_s=st.integers(2, 40).map(lambda ms: ms / 1000),
        tokens=st.sampled_from([1, 5]),
        domain=st.sampled_from([None, "law"]),
    ),
    max_size=6,
).map(lambda offered: sorted(offered, key=lambda request: request.arrived_s))


def bound(offered: list[Offered], variants: tuple[Variant, ...], cores: int = 1) -> Bound:
    """The bound with all requests counted."""
    return oracle_bound(offered, variants, cores, OVERHEAD_S, lambda request: True)


def runs_of(variant: Variant, offered: list[Offered]) -> list[tuple[int, float, float, float]]:
    """Every possible run: its members as bits, its earliest start, its duration, and its latest end."""
    able = [place for place, r in enumerate(offered) if variant.domain in (None, r.domain)]
    found = []
    for size in range(1, variant.max_batch + 1):
        for members in combinations(able, size):
            of = [offered[place] for place in members]
            lasts_s = variant.median_s(size, max(r.tokens for r in of))
            closes_s = min(r.deadline_s for r in of) - OVERHEAD_S
            found.append((sum(1 << place for place in members), max(r.arrived_s for r in of), lasts_s, closes_s))
    return found


def optimum(offered: list[Offered], variants: tuple[Variant, ...]) -> float:
    """The most that any order of runs earns on one core, found by keeping the earliest end for each amount earned."""
    reached: list[dict[float, float]] = [{} for _ in range(1 << len(offered))]
    reached[0][0.0] = 0.0
    choices = [(variant, run) for variant in variants for run in runs_of(variant, offered)]
    for done, ends in enumerate(reached):
        for earned, free_s in ends.items():
            for variant, (members, begins_s, lasts_s, closes_s) in choices:
                end_s = max(free_s, begins_s) + lasts_s
                if not done & members and end_s <= closes_s + 1e-12:
                    after, more = reached[done | members], earned + variant.quality * members.bit_count()
                    after[more] = min(end_s, after.get(more, end_s))
    return max(earned for ends in reached for earned in ends)


def is_feasible(runs: tuple[PlannedRun, ...], cores: int) -> bool:
    """Whether the planned runs are possible: none too early, late or large, twice, or on a busy core."""
    free_s = [0.0] * cores
    served: set[int] = set()
    for run in sorted(runs, key=lambda run: run.begins_s):
        lasts_s = run.variant.median_s(len(run.members), max(r.tokens for r in run.members))
        fits = all(
            r.arrived_s <= run.begins_s
            and run.ends_s + OVERHEAD_S <= r.deadline_s + 1e-9
            and run.variant.domain in (None, r.domain)
            for r in run.members
        )
        new = not served & {id(r) for r in run.members} and len({id(r) for r in run.members}) == len(run.members)
        served |= {id(r) for r in run.members}
        sound = abs(run.ends_s - run.begins_s - lasts_s) < 1e-9 and len(run.members) <= run.variant.max_batch
        if not (fits and new and sound and free_s[run.core] <= run.begins_s + 1e-12):
            return False
        free_s[run.core] = run.ends_s
    return True


@tried(2)
@given(requests, catalogs())
def test_the_optimum_lies_between_the_bounds(offered: list[Offered], variants: tuple[Variant, ...]) -> None:
    """The optimum on one core lies between `lower` and `upper`."""
    found, best = bound(offered, variants), optimum(offered, variants)
    assert found.lower <= best + 1e-9
    assert best <= found.upper


@tried(0.7)
@given(requests, catalogs(), st.integers(1, 2))
def test_the_schedule_could_be_run(offered: list[Offered], variants: tuple[Variant, ...], cores: int) -> None:
    """The schedule behind `lower` earns what it claims and keeps every rule of the simulator."""
    found = bound(offered, variants, cores)
    assert is_feasible(found.schedule, cores)
    assert found.lower == sum(run.variant.quality * len(run.members) for run in found.schedule)


@tried(0.7)
@given(requests, catalogs(), st.integers(0, 9), st.integers(1, 2))
def test_sharing_cores_earns_no_more(
    offered: list[Offered], variants: tuple[Variant, ...], seed: int, cores: int
) -> None:
    """A policy that starts every request alone on arrival stays below `upper`."""
    world = World(cores, seed)
    chosen = {variant.name: variant.quality for variant in variants}

    class AtOnce:
        def arrived(self, request: Offered) -> None:
            able = [variant for variant in variants if variant.domain in (None, request.domain)]
            variant = world.chance.choice(able)
            end = lambda run: world.finish(request, variant.name, world.now_s + OVERHEAD_S)  # noqa: E731
            world.node.start(variant, [request], request.tokens, end)

        def ended(self) -> None: ...

    played = [replace(request) for request in offered]
    world.play(played, AtOnce())
    earned = sum(chosen[str(r.variant)] for r in played if r.fate is Fate.IN_TIME)
    assert earned <= bound(offered, variants, cores).upper


@tried(0.5)
@given(requests, catalogs(), st.integers(0, 20))
def test_more_cores_and_more_time_lower_no_bound(
    offered: list[Offered], variants: tuple[Variant, ...], more_ms: int
) -> None:
    """What `lower` proves on one core never exceeds `upper` on more cores or with larger budgets."""
    lower = bound(offered, variants).lower
    larger = [replace(request, budget_s=request.budget_s + more_ms / 1000) for request in offered]
    assert lower <= bound(offered, variants, cores=2).upper
    assert lower <= bound(larger, variants).upper


@given(requests, catalogs(), st.integers(0, 20))
def test_more_time_makes_no_request_dearer(offered: list[Offered], variants: tuple[Variant, ...], more_ms: int) -> None:
    """Larger budgets never raise the cost of a request, since every possible run remains possible."""
    larger = [replace(request, budget_s=request.budget_s + more_ms / 1000) for request in offered]
    before, after = (
        menus(of, variants, OVERHEAD_S, lambda request: True, lambda variant: variant.quality).costs_s
        for of in (offered, larger)
    )
    assert (after <= before).all()


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=40), st.data())
def test_a_sparse_table_finds_the_least_of_any_stretch(values: list[float], data: st.DataObject) -> None:
    """A sparse table finds the minimum of any stretch."""
    first = data.draw(st.integers(0, len(values) - 1))
    last = data.draw(st.integers(first, len(values) - 1))
    assert SparseTable.of(np.array(values)).least(np.array([first]), np.array([last]))[0] == min(
        values[first : last + 1]
    )


def test_the_bounds_lie_close_under_overload() -> None:
    """Under twice the load that the best variant could serve, `lower` is more than 93 % of `upper`."""
    chance = np.random.default_rng(7)
    good = SampledTimes({1: (0.02,), 8: (0.12,)})
    fair = SampledTimes({1: (0.004,), 8: (0.024,)})
    variants = (
        Variant("good", "classify", 90.0, Tier.QUALITY, good, 8),
        Variant("fair", "classify", 80.0, Tier.REALTIME, fair, 8),
    )
    arrivals = np.sort(chance.uniform(0, 3, size=800))
    offered = [Offered(at, "classify", float(s), float(chance.uniform(0.05, 0.3)), 20) for at, s in enumerate(arrivals)]
    found = bound(offered, variants, cores=2)
    assert found.upper < 0.97 * 90 * len(offered)
    assert found.lower > 0.93 * found.upper
