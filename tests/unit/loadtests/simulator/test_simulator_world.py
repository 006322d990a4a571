"""The simulated node and its clock: cores shared by runs, priorities, and exactly one end for each request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from small_scenarios import ONE, Even, variant

from loadtests.simulator.world import LEAST_FREE, LEAST_PATIENT, PATIENT, URGENT, Run, World
from loadtests.workload.arrivals import Fate, Offered
from loadtests.workload.variants import Variant

BATCHING = variant("batching", 80.0, Even(fixed_s=0.008, per_text_s=0.002), max_batch=8)


def request(sequence: int = 0, arrived_s: float = 0.0, budget_s: float = 0.05) -> Offered:
    """A request of one short text."""
    return Offered(sequence, "classify", arrived_s, budget_s, 20)


@dataclass
class Alone:
    """Runs each request by itself on arrival, each with its own priority, and records when runs end."""

    world: World
    variant: Variant = ONE[0]
    priorities: Sequence[int] = ()
    ends_s: dict[int, float] = field(default_factory=dict)
    over: bool = False

    def arrived(self, one: Offered) -> None:
        priority = self.priorities[one.sequence] if self.priorities else URGENT
        self.world.node.start(self.variant, (one,), one.tokens, self._done, priority)

    def ended(self) -> None:
        self.over = True

    def _done(self, run: Run) -> None:
        for one in run.members:
            self.ends_s[one.sequence] = self.world.now_s
            self.world.finish(one, run.variant.name)


def ends_s(
    arrivals_s: Sequence[float],
    cores: float,
    priorities: Sequence[int] = (),
    prepare: Callable[[World], None] = lambda world: None,
) -> list[float]:
    """The ends of runs of 10 ms each that start at these instants."""
    world = World(cores, seed=1)
    prepare(world)
    policy = Alone(world, priorities=priorities)
    world.play([request(place, at_s) for place, at_s in enumerate(arrivals_s)], policy)
    return [policy.ends_s[place] for place in range(len(arrivals_s))]


@pytest.mark.parametrize(
    ("arrivals_s", "cores", "expected_s"),
    [
        ([0.0], 1, [0.010]),
        ([0.0, 0.0], 2, [0.010, 0.010]),
        ([0.0, 0.0], 1, [0.020, 0.020]),
        ([0.0, 0.005], 1, [0.015, 0.020]),
        ([0.0, 0.0, 0.0], 2, [0.015, 0.015, 0.015]),
        ([0.0, 0.020], 1, [0.010, 0.030]),
    ],
)
def test_runs_have_a_core_each_while_there_are_enough_and_equal_shares_where_not(
    arrivals_s: list[float], cores: int, expected_s: list[float]
) -> None:
    """Two runs on one core take twice as long; one that starts half way slows both down from then on."""
    assert ends_s(arrivals_s, cores) == pytest.approx(expected_s)


def test_the_urgent_have_what_they_need_before_the_patient() -> None:
    """An urgent run takes nearly the whole core from a patient one, which catches up afterwards."""
    patient_s, urgent_s = ends_s([0.0, 0.0], 1, [PATIENT, URGENT])
    assert urgent_s == pytest.approx(0.010 / (1 - LEAST_PATIENT))
    assert patient_s == pytest.approx(0.020)


def test_the_patient_share_what_the_urgent_leave() -> None:
    """Patient runs share equally what urgent ones leave: on two cores with one urgent run, half a core each."""
    first_s, second_s, urgent_s = ends_s([0.0, 0.0, 0.0], 2, [PATIENT, PATIENT, URGENT])
    assert urgent_s == pytest.approx(0.010)
    assert first_s == second_s == pytest.approx(0.015)


def test_stolen_cores_are_not_there_for_runs() -> None:
    """Stolen cores are not available to runs, from the instant at which they are stolen."""
    assert ends_s([0.0], 1, prepare=lambda world: world.node.steal(0.5)) == pytest.approx([0.020])
    assert ends_s([0.0], 1, prepare=lambda world: world.at(0.005, world.node.steal, 0.5)) == pytest.approx([0.015])
    assert ends_s([0.0], 2, prepare=lambda world: world.node.steal(1.0)) == pytest.approx([0.010])


def test_however_much_is_stolen_runs_end() -> None:
    """Runs end however many cores are stolen, since a small part is always left."""
    assert ends_s([0.0], 1, prepare=lambda world: world.node.steal(3.0)) == pytest.approx([0.010 / LEAST_FREE])


def test_the_gateways_own_work_goes_before_runs_one_piece_after_another() -> None:
    """The gateway's own work delays a run on the only core by its duration, and on two cores not at all."""

    def twice(world: World) -> None:
        for _ in range(2):
            world.at(0.004, world.node.interrupt, 0.003)
        world.at(0.5, world.node.interrupt, 0.0)

    slowly_s = 0.006 * LEAST_FREE  # for the share of the core that runs keep
    assert ends_s([0.0], 1, prepare=twice) == pytest.approx([0.016 - slowly_s])
    assert ends_s([0.0], 2, prepare=twice) == pytest.approx([0.010])


def test_a_lone_run_is_fast_while_nothing_else_runs() -> None:
    """A run that goes twice as fast alone loses that while another runs, and while a core is stolen."""

    def end_s(prepare: Callable[[World], None]) -> float:
        world, ended = World(2, seed=1), list[float]()
        world.node.start_work(ONE[0], (request(),), 0.020, lambda run: ended.append(world.now_s), pace=2.0)
        prepare(world)
        world.play([], Alone(world))
        return ended[0]

    def joined(world: World) -> None:
        def begin() -> None:
            world.node.start_work(ONE[0], (request(1),), 0.004, lambda run: None)

        world.at(0.002, begin)

    assert end_s(lambda world: None) == pytest.approx(0.010)
    assert end_s(joined) == pytest.approx(0.002 + 0.004 + (0.020 - 0.004 - 0.004) / 2)
    assert end_s(lambda world: world.node.steal(0.5)) == pytest.approx(0.020)


def test_a_batch_is_one_run_and_its_members_share_its_cost() -> None:
    """A batch is one run as long as its padded median, and its members share its cost equally."""
    world, ended = World(1, seed=1), []
    members = [request(place) for place in range(4)]
    world.node.start(BATCHING, members, 20, lambda run: ended.append((world.now_s, run.members)))
    world.play([], Alone(world))
    ((end_s, carried),) = ended
    assert end_s == pytest.approx(0.016) and carried == tuple(members)
    assert [one.engine_s for one in members] == pytest.approx([0.004] * 4)
    assert world.node.busy_s == pytest.approx(0.016)


def test_an_answer_at_the_deadline_is_in_time_and_one_after_it_is_late() -> None:
    """An answer is in time if it reaches its client at or before the deadline."""
    world = World(1, seed=1)
    prompt, tardy = request(0, budget_s=0.05), request(1, budget_s=0.05)
    world.finish(prompt, "one", 0.05)
    world.finish(tardy, "one", 0.050001)
    assert (prompt.fate, tardy.fate, prompt.variant) == (Fate.IN_TIME, Fate.LATE, "one")
    assert tardy.finished_s == 0.050001


def test_a_request_ends_once() -> None:
    """A request ends only once; a policy that ends it twice gets an error."""
    world, one = World(1, seed=1), request()
    world.refuse(one)
    for again in (world.refuse, world.fail, lambda it: world.finish(it, "one")):
        with pytest.raises(ValueError, match="request 0 ends a second time"):
            again(one)


def test_what_is_due_at_one_instant_happens_in_the_order_it_was_told() -> None:
    """Events due at one instant happen in the order of their scheduling, and the clock never goes back."""
    world, told = World(1, seed=1), []
    world.at(0.2, lambda: world.at(0.1, lambda: told.append(("late", world.now_s))))
    for name in "abc":
        world.at(0.2, told.append, (name, 0.2))
    world.play([], Alone(world))
    assert told == [("a", 0.2), ("b", 0.2), ("c", 0.2), ("late", 0.2)]


def test_a_play_until_a_request_ends_goes_no_further() -> None:
    """A simulation until one request's end leaves later ones open; a whole one ends all and notifies the policy."""
    world = World(1, seed=1)
    offered, policy = [request(place, 0.02 * place) for place in range(3)], Alone(world)
    world.play(offered, policy, until=offered[1])
    assert [one.fate for one in offered] == [Fate.IN_TIME, Fate.IN_TIME, Fate.OPEN] and not policy.over
    assert world.now_s == pytest.approx(0.030)
    again, whole = World(1, seed=1), [request(place, 0.02 * place) for place in range(3)]
    policy = Alone(again)
    again.play(whole, policy)
    assert all(one.fate is Fate.IN_TIME for one in whole) and policy.over
