"""Simulates the runs of a scenario's grid in parallel processes.

A run depends only on its order, so results do not depend on the number of processes. A process imports the simulator
and no engine; each piece of work carries the scenario data that it needs.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from time import process_time
from typing import TypeVar

from loadtests.errors import LoadTestError
from loadtests.reports.runs import Recorded
from loadtests.simulator.simulation import BOUND, OURS, Place, Simulation
from loadtests.workload.arrivals import Fate, Offered, rate_of, rate_over_time
from loadtests.workload.scenario import Scenario


class WorkerLost(LoadTestError):
    """A simulation process ended before its run; the message gives a likely reason."""


Item = TypeVar("Item")
Result = TypeVar("Result")

_RELATIVE_COST = {BOUND: 20.0, OURS: 10.0, "ramsis": 4.0, "model-switching": 2.0}
"""The rough cost of a request relative to other policies, used only to order the runs."""


@dataclass(frozen=True, slots=True)
class Order:
    """One run to simulate. Keeps samples for plots if `plotted`, and samples up to `refusals` refusals."""

    policy: str
    place: Place
    plotted: bool = False
    refusals: int = 0


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished run: its results, its number of requests including the warm-up, and its CPU time.

    `refused` are the sequences of the sampled strict refusals.
    """

    order: Order
    recorded: tuple[Recorded, ...]
    requests: int
    core_s: float
    refused: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Insisted:
    """A refused request, and its outcome in a run of its own that admitted it."""

    place: Place
    sequence: int
    fate: Fate

    @property
    def rightly(self) -> bool:
        """True if it was not answered in time when admitted."""
        return self.fate is not Fate.IN_TIME


def orders_of(scenario: Scenario, policies: Sequence[str], plots: bool = False, refusals: int = 0) -> tuple[Order, ...]:
    """Every policy at every load, coefficient of variation and seed, in the order of results.

    Plots of single requests use the load nearest to 1 and the first seed.
    """
    plotted = (min(scenario.loads, key=lambda load: (abs(load - 1), load)), scenario.seeds[0])
    places = [
        Place(load, cv, seed)
        for cv in dict.fromkeys(scenario.cvs)
        for load in dict.fromkeys(scenario.loads)
        for seed in dict.fromkeys(scenario.seeds)
    ]
    return tuple(
        Order(policy, place, plots and (place.load, place.seed) == plotted, refusals if policy == OURS else 0)
        for policy in policies
        for place in places
    )


def run_all(simulation: Simulation, orders: Sequence[Order], jobs: int) -> Iterator[Ran]:
    """Simulates the runs, longest first to balance the processes; yields each when it is done.

    Raises ScenarioError, UnknownPolicy, NothingCounted and WorkerLost.
    """
    dearest = sorted(orders, key=partial(_cost, simulation), reverse=True)
    return side_by_side(partial(_ran, simulation), dearest, jobs)


def insist_all(simulation: Simulation, ran: Sequence[Ran], jobs: int) -> Iterator[Insisted]:
    """Admits each sampled refusal in a run of its own; yields each when it is done."""
    refusals = [Insisted(one.order.place, sequence, Fate.REFUSED) for one in ran for sequence in one.refused]
    return side_by_side(partial(_insisted, simulation), refusals, jobs)


def in_order(ran: Sequence[Ran], orders: Sequence[Order]) -> tuple[Recorded, ...]:
    """The results of all runs in the order of `orders`."""
    of = {one.order: one for one in ran}
    return tuple(recorded for order in orders for recorded in of[order].recorded)


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item], jobs: int) -> Iterator[Result]:
    """Applies `work` to each item on `jobs` processes (in this one for 1 job); yields results as they finish.

    Raises what `work` raises, and WorkerLost if a process ended before its work.
    """
    if min(jobs, len(items)) <= 1:
        yield from map(work, items)
        return
    context = multiprocessing.get_context("spawn")  # inherits no threads or progress bars
    pool = ProcessPoolExecutor(min(jobs, len(items)), context, initializer=_end_when_interrupted)
    try:
        for future in as_completed([pool.submit(work, item) for item in items]):
            yield future.result()
    except BrokenProcessPool:
        raise WorkerLost("a simulation process ended before its run; too little memory for --jobs?") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _cost(simulation: Simulation, order: Order) -> float:
    rate_per_s = rate_of(simulation.scenario, simulation.variants, order.place.load)
    pieces = rate_over_time(simulation.scenario, rate_per_s)
    return _RELATIVE_COST.get(order.policy, 1.0) * sum(piece.expected for piece in pieces)


def _end_when_interrupted() -> None:
    """Lets Ctrl-C end the process silently; its parent reports it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _ran(simulation: Simulation, order: Order) -> Ran:
    began_s = process_time()
    offered = simulation.offered(order.place)
    recorded = simulation.played(order.policy, order.place, offered)
    if not order.plotted:
        recorded = [replace(one, samples=()) for one in recorded]
    refused = _drawn(simulation, offered, order) if order.refusals else ()
    return Ran(order, tuple(recorded), len(offered), process_time() - began_s, refused)


def _drawn(simulation: Simulation, offered: Sequence[Offered], order: Order) -> tuple[int, ...]:
    """Samples the requested number of counted strict refusals; equal runs give equal samples."""
    refused = [one.sequence for one in offered if one.fate is Fate.REFUSED and one.strict and simulation.counted(one)]
    chance = random.Random(f"{order.place!r} refusals")
    return tuple(sorted(chance.sample(refused, min(order.refusals, len(refused)))))


def _insisted(simulation: Simulation, refusal: Insisted) -> Insisted:
    return replace(refusal, fate=simulation.insisted(refusal.place, refusal.sequence))
