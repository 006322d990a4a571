"""The scheduler of published policies, simulated: a queue for each task, free cores, and every request ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from small_scenarios import Even, variant

from gateway.scheduling.ruled import Chosen, RequestView
from loadtests.simulator.gateway import Ruled
from loadtests.simulator.world import World
from loadtests.workload.arrivals import Fate, Offered
from loadtests.workload.variants import Variant

QUICK = variant("quick", 80.0, Even(fixed_s=0.008, per_text_s=0.002), max_batch=8)
LONG = variant("long", 40.0, Even(per_text_s=0.030), task="summarize")

Choose = Callable[[Sequence[RequestView], float], Chosen[Variant]]


@dataclass
class Simple:
    """A rule given as a function of the queue and the time; it records arrivals and endings."""

    choose_of: Choose
    heard: list[RequestView] = field(default_factory=list)
    ends: list[tuple[str, tuple[int, ...], float]] = field(default_factory=list)

    def arrived(self, request: RequestView, now_s: float) -> None:
        self.heard.append(request)

    def choose(self, queue: Sequence[RequestView], now_s: float) -> Chosen[Variant]:
        return self.choose_of(queue, now_s)

    def ended(self, variant: Variant, members: Sequence[RequestView], seconds: float, now_s: float) -> None:
        self.ends.append((variant.name, tuple(self.heard.index(one) for one in members), seconds))


def first_of(variant: Variant, most: int = 1) -> Choose:
    """A choice of the first requests of the queue, at most this many."""
    return lambda queue, now_s: Chosen(variant, tuple(queue[:most]))


def nothing(queue: Sequence[RequestView], now_s: float) -> Chosen[Variant]:
    """Neither runs nor drops anything."""
    return Chosen()


def requests(*arrived_s: float, task: str = "classify", budget_s: float = 1.0, texts: int = 1) -> list[Offered]:
    """A request at each of these instants."""
    return [Offered(place, task, at_s, budget_s, 20, texts) for place, at_s in enumerate(arrived_s)]


def play(offered: Sequence[Offered], cores: int = 1, overhead_s: float = 0.001, **rules: Simple) -> World:
    """Simulates the requests under a rule for each task."""
    world = World(cores, seed=1)
    world.play(offered, Ruled(world, (QUICK, LONG), rules, cores, overhead_s))
    return world


def test_a_run_follows_the_other_on_a_free_core_and_the_overhead_comes_on_top() -> None:
    """Two cores run two batches at a time, each as long as its median; the overhead is added to each answer."""
    offered = requests(0.0, 0.0, 0.0)
    rule = Simple(first_of(QUICK))
    play(offered, cores=2, classify=rule)
    assert [one.finished_s for one in offered] == pytest.approx([0.011, 0.011, 0.021])
    assert [one.arrived_s for one in rule.heard] == [0.0, 0.0, 0.0]
    assert [seconds for _, _, seconds in rule.ends] == pytest.approx([0.010] * 3)


def test_members_run_together_by_their_texts() -> None:
    """A batch's size is its number of texts: two requests of three texts each run as six inputs."""
    offered = requests(0.0, 0.0, 0.0, texts=3)
    rule = Simple(first_of(QUICK, most=2))
    play(offered, classify=rule)
    assert [members for _, members, _ in rule.ends] == [(0,), (1, 2)]
    assert offered[2].finished_s == pytest.approx(0.014 + 0.020 + 0.001)


def test_what_a_rule_drops_has_failed_and_costs_nothing() -> None:
    """A dropped request has failed and takes no time of a core."""
    offered = requests(0.0, 0.0, 0.0)

    def drop_odd(queue: Sequence[RequestView], now_s: float) -> Chosen[Variant]:
        odd = tuple(one for one in queue if rule.heard.index(one) % 2)
        kept = tuple(one for one in queue if one not in odd)
        return Chosen(QUICK, kept[:1], odd) if kept else Chosen(drop=odd)

    rule = Simple(drop_odd)
    world = play(offered, classify=rule)
    assert [one.fate for one in offered] == [Fate.IN_TIME, Fate.FAILED, Fate.IN_TIME]
    assert world.node.busy_s == pytest.approx(0.020)


def test_what_nobody_ever_runs_has_failed() -> None:
    """A request that a rule never runs has failed at the end."""
    offered = requests(0.0, 0.1, 0.2)
    play(offered, classify=Simple(nothing))
    assert [one.fate for one in offered] == [Fate.FAILED] * 3


def test_a_free_core_goes_to_the_task_whose_head_is_most_urgent() -> None:
    """A free core goes to the task whose first request has the earliest deadline, unless its rule chooses nothing."""
    summary = Offered(0, "summarize", 0.0, 0.5, 200)
    urgent = Offered(1, "classify", 0.001, 0.2, 20)
    relaxed = Offered(2, "classify", 0.002, 5.0, 20)
    held = Offered(3, "summarize", 0.003, 1.0, 200)
    summarize, classify = Simple(first_of(LONG)), Simple(first_of(QUICK))
    play([summary, urgent, relaxed, held], overhead_s=0.0, summarize=summarize, classify=classify)
    ends_s = [one.finished_s for one in (summary, urgent, held, relaxed)]
    assert ends_s == pytest.approx([0.030, 0.040, 0.070, 0.080])
    other = Offered(0, "summarize", 0.0, 0.5, 200), Offered(1, "classify", 0.0, 0.1, 20)
    play(other, summarize=Simple(first_of(LONG)), classify=Simple(nothing))
    assert [one.fate for one in other] == [Fate.IN_TIME, Fate.FAILED]
