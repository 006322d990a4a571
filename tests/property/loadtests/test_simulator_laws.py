"""Laws of the simulated node and its replicas, for any requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played_replicas import WRITER
from small_scenarios import ONE, Even, variant

from loadtests.simulator.replica import BatchingReplica, SharingReplica
from loadtests.simulator.world import LEAST_FREE, PATIENT, URGENT, Run, World
from loadtests.workload.arrivals import Offered
from loadtests.workload.variants import Variant

BATCHING = variant("batching", 80.0, Even(fixed_s=0.005, per_token_s=0.0001), max_batch=4)


@dataclass(frozen=True)
class Work:
    """Core-seconds of work that begin at an instant, with a priority."""

    at_s: float
    seconds: float
    priority: int


works = st.lists(
    st.builds(Work, st.floats(0, 0.2), st.floats(0.001, 0.1), st.sampled_from([URGENT, PATIENT])),
    min_size=1,
    max_size=12,
)
asked = st.builds(
    Offered,
    sequence=st.just(0),
    task=st.just("any"),
    arrived_s=st.floats(0, 0.1),
    budget_s=st.floats(0.001, 0.3),
    tokens=st.integers(5, 200),
    texts=st.integers(1, 6),
    strict=st.booleans(),
)


@dataclass
class Noted:
    """Starts each piece of work at its instant and records its end; no request arrives."""

    world: World
    ends_s: dict[int, float] = field(default_factory=dict)
    running: list[int] = field(default_factory=list)

    def begin(self, place: int, work: Work) -> None:
        self.world.node.start_work(ONE[0], (), work.seconds, lambda run: self._end(place, run), work.priority)

    def _end(self, place: int, run: Run) -> None:
        self.ends_s[place] = self.world.now_s

    def arrived(self, request: Offered) -> None:
        """Does nothing, since no request arrives."""

    def ended(self) -> None:
        """Does nothing, since no request waits."""


@given(works, st.integers(1, 3), st.floats(0, 1.5))
def test_the_cores_do_all_the_work_and_no_more_than_they_can(some: list[Work], cores: int, stolen: float) -> None:
    """No run is quicker than alone, no stretch does more work than its cores can, and all work is done."""
    world = World(cores, seed=1)
    world.node.steal(stolen)
    noted = Noted(world)
    for place, work in enumerate(some):
        world.at(work.at_s, noted.begin, place, work)
    world.play([], noted)
    assert set(noted.ends_s) == set(range(len(some)))
    assert world.node.busy_s == pytest.approx(sum(work.seconds for work in some))
    free = max(cores - stolen, LEAST_FREE)
    for place, work in enumerate(some):
        assert noted.ends_s[place] >= work.at_s + work.seconds - 1e-7
        since = sum(other.seconds for other in some if other.at_s >= work.at_s)
        assert since <= free * (max_end(noted) - work.at_s) + 1e-6


@given(works, st.integers(1, 3))
def test_the_cores_never_idle_while_there_is_work_for_them(some: list[Work], cores: int) -> None:
    """If all work begins at once, the last ends no later than on one core alone, and on one core exactly then."""
    world = World(cores, seed=1)
    noted = Noted(world)
    for place, work in enumerate(some):
        world.at(0.0, noted.begin, place, work)
    world.play([], noted)
    whole_s = sum(work.seconds for work in some)
    assert max_end(noted) <= whole_s + 1e-7
    if cores == 1:
        assert max_end(noted) == pytest.approx(whole_s)


@dataclass
class Sends:
    """Sends the requests to one replica, in batches of this size or fewer, and records their ends."""

    world: World
    replica: BatchingReplica | SharingReplica
    size: int
    told: list[tuple[Offered, bool, float]] = field(default_factory=list)
    gathered: list[Offered] = field(default_factory=list)

    def arrived(self, request: Offered) -> None:
        self.gathered.append(request)
        if len(self.gathered) == self.size:
            self.send()

    def send(self) -> None:
        members, self.gathered = self.gathered, []
        self.replica.enter(members, self._end)

    def ended(self) -> None:
        """Does nothing, since no request waits here."""

    def _end(self, requests: Sequence[Offered], service_s: float, answered: bool, texts: int) -> None:
        self.told += [(request, answered, self.world.now_s) for request in requests]


def sent(
    some: list[Offered], world: World, replica: BatchingReplica | SharingReplica, size: int
) -> list[tuple[Offered, bool, float]]:
    """Play the requests in batches, and return how each ended and when, after checking that each did once."""
    sends = Sends(world, replica, size)
    world.play(some[: len(some) // size * size], sends)
    assert sorted(id(one) for one, _, _ in sends.told) == sorted(id(one) for one in some[: len(some) // size * size])
    for one, answered, at_s in sends.told:
        assert answered or one.strict
        assert at_s >= one.arrived_s
    return sends.told


@given(st.lists(asked, min_size=1, max_size=20), st.integers(1, 2), st.integers(1, 4))
def test_a_classifier_tells_of_every_request_once_and_gives_up_only_what_is_lost(
    some: list[Offered], slots: int, size: int
) -> None:
    """A classifier reports every request once; unanswered ends only a strict one that would be late even alone."""
    some.sort(key=lambda one: one.arrived_s)
    world = World(slots, seed=1)
    for one, answered, at_s in sent(some, world, BatchingReplica(world, BATCHING, slots), size):
        assert answered or at_s + BATCHING.median_s(1, one.tokens) > one.deadline_s


@given(
    st.lists(asked, min_size=1, max_size=20), st.integers(1, 2), st.integers(1, 4), st.sampled_from([ONE[0], WRITER])
)
def test_a_writer_tells_of_every_request_once_and_of_no_strict_one_much_too_late(
    some: list[Offered], slots: int, size: int, of: Variant
) -> None:
    """Time slices or shared steps end every request once; only a strict one unanswered, soon after its deadline."""
    some.sort(key=lambda one: one.arrived_s)
    world = World(slots, seed=1)
    for one, answered, at_s in sent(some, world, SharingReplica(world, of, slots), size):
        assert answered or at_s <= max(one.deadline_s, some[-1].arrived_s) + 0.02 * slots + 1e-6


def max_end(noted: Noted) -> float:
    """The instant at which the last run ended."""
    return max(noted.ends_s.values())
