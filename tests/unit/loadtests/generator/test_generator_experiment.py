"""An experiment against a live gateway: interleaved runs, load relative to capacity, an uncounted warm-up."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from small_scenarios import Even, scenario, variant
from waiting import wait_until

from loadtests.generator.calls import Call, Handling, Shelf, Stock
from loadtests.generator.capacity import (
    KEPT_UP,
    Capacity,
    NothingOffered,
    Step,
    measured_capacity,
    step_of,
    step_scenario,
)
from loadtests.generator.experiment import Experiment, Terms, planned
from loadtests.generator.neighbour import Neighbour, NoNeighbour, beside, command_of
from loadtests.generator.open_loop import Order
from loadtests.generator.results import Prediction, Result
from loadtests.workload.arrivals import Fate
from loadtests.workload.files import ScenarioError
from loadtests.workload.scenario import Scenario, overridden

STOCK = Stock(Shelf.of(["a good film"]), {None: Shelf.of(["a paper"])})
VARIANTS = (variant("grand", 90, Even(per_text_s=0.01)), variant("swift", 80, Even(per_text_s=0.005)))
"""On two cores the better of these variants serves 200 requests/s."""

SHORT = scenario(seconds=10.0, warmup_s=2.0, loads=(0.5, 1.0), cvs=(1.0, 4.0), seeds=(1, 2, 3))
FREE, SWIFT, GRAND = Handling("gateway"), Handling("static:swift", {0: "swift"}), Handling("static:grand", {0: "grand"})


class Played:
    """Replaces the generator: a gateway that serves requests in the order of arrival, at a given rate per second."""

    def __init__(self, per_s: float = 1e6, lag_s: float = 0.0, reason: str | None = None) -> None:
        self.per_s = per_s
        self.lag_s = lag_s
        self.reason = reason
        self.orders: list[Order] = []

    def __call__(self, order: Order, tick: Callable[[float], None]) -> list[Result]:
        self.orders.append(order)
        free_s = 0.0
        found = []
        for call in order.calls:
            free_s = max(free_s, call.due_s) + 1 / self.per_s
            found.append(self._result(call, free_s - call.due_s))
            tick(call.due_s)
        return found

    def _result(self, call: Call, latency_s: float) -> Result:
        checkpoint = call.headers.get("X-Checkpoint", "swift")
        prediction = Prediction(checkpoint, "quality", "fits", 0.01, 0.01, 0.01, self.reason)
        fate = Fate.IN_TIME if latency_s <= call.budget_s else Fate.LATE
        sent_s = call.due_s + self.lag_s
        return Result(
            call.sequence, 0, call.task, call.due_s, call.budget_s, sent_s, latency_s, fate, prediction=prediction
        )


def experiment(fire: Played, played: Scenario = SHORT, terms: Terms | None = None) -> Experiment:
    """An experiment over the two variants."""
    return Experiment(played, VARIANTS, STOCK, terms or Terms("http://there"), fire)


def silent(*said: object) -> None:
    """Ignores progress."""


def test_every_handling_meets_every_place_under_every_seed() -> None:
    """Every policy runs at every load under every seed; policies take turns, and each is first equally often."""
    runs = planned(SHORT, [FREE, SWIFT, GRAND])
    assert len(set(map(str, runs))) == len(runs) == 3 * 2 * 2 * 3
    groups = [runs[at : at + 3] for at in range(0, len(runs), 3)]
    assert all(len({(one.load, one.cv, one.seed) for one in group}) == 1 for group in groups)
    assert [group[0].seed for group in groups] == sorted(group[0].seed for group in groups)
    assert set(Counter(group[0].handling.label for group in groups).values()) == {4}
    assert any(left[0].handling != right[0].handling for left, right in pairwise(groups))


def test_the_warm_up_is_offered_and_not_counted() -> None:
    """Requests of the warm-up are sent, but counted in no figure and no sample."""
    fire = Played()
    (first, *_) = planned(SHORT, [FREE])
    ran = experiment(fire).run(first, Capacity(200.0), silent)
    due = [call.due_s for call in fire.orders[0].calls]
    assert min(due) < 2.0 and max(due) < 12.0
    assert ran.result.offered == len(ran.results) == sum(at >= 2.0 for at in due) < len(due)
    assert (ran.result.seconds, ran.result.mode, ran.result.policy) == (10.0, "live", "gateway")


def test_a_load_is_a_multiple_of_the_capacity_that_is_told() -> None:
    """A load is a multiple of the capacity, whether that was computed from profiles or measured."""
    one = planned(SHORT, [FREE])[0]
    reckoned, measured = Played(), Played()
    whole = experiment(reckoned)
    assert whole.reckoned_capacity().per_s == pytest.approx(200.0)
    by_profile = whole.run(one, whole.reckoned_capacity(), silent).result
    found = experiment(measured).run(one, Capacity(100.0, (Step(1, 1, 1, True),)), silent).result
    assert [by_profile.rate_per_s, found.rate_per_s] == pytest.approx([100.0, 50.0])
    assert len(reckoned.orders[0].calls) == pytest.approx(1200, rel=0.1)
    assert len(measured.orders[0].calls) == pytest.approx(600, rel=0.15)
    assert (found.load, found.capacity_per_s, found.capacity_measured) == (0.5, 100.0, True)
    assert by_profile.capacity_per_s == pytest.approx(200.0) and not by_profile.capacity_measured


def test_an_answer_is_waited_for_a_while_after_the_longest_budget() -> None:
    """An answer is awaited for `patience_s` beyond the longest budget."""
    fire = Played()
    experiment(fire, terms=Terms("http://there", patience_s=7.0)).run(planned(SHORT, [FREE])[0], Capacity(200), silent)
    assert 7.09 < fire.orders[0].within_s <= 7.1 and fire.orders[0].url == "http://there"


def test_a_run_without_requests_is_told() -> None:
    """A run in which no request is due is an error, not an empty result."""
    with pytest.raises(NothingOffered, match="no request is due"):
        experiment(Played()).run(planned(SHORT, [FREE])[0], Capacity(1e-6), silent)


@pytest.mark.parametrize("per_s", [60.0, 150.0, 420.0])
def test_the_capacity_is_what_the_quality_tier_serves(per_s: float) -> None:
    """The measured capacity is the quality tier's throughput under overload, whatever the profiles promise."""
    fire, steps = Played(per_s), list[Step | None]()
    capacity = experiment(fire).measured_capacity(lambda step, age_s: steps.append(step))
    assert capacity.per_s == pytest.approx(per_s, rel=0.05)
    assert capacity.measured and capacity.reached and [one for one in steps if one] == list(capacity.steps)
    headers = [call.headers for order in fire.orders for call in order.calls]
    assert {one["X-Checkpoint"] for one in headers} == {"grand"} and {one["X-SLA-Mode"] for one in headers} == {
        "best-effort"
    }


def test_summaries_that_a_deadline_cut_are_no_capacity() -> None:
    """Summaries that a deadline cut short do not count as capacity: they are quick because they are unfinished."""
    with pytest.raises(NothingOffered, match="no step that the generator sent on time"):
        experiment(Played(reason="deadline")).measured_capacity(silent)


def test_a_generator_that_cannot_keep_up_ends_the_measurement() -> None:
    """The measurement of capacity ends when the generator sends late, since that says nothing of the gateway."""
    with pytest.raises(NothingOffered, match="that the generator sent on time"):
        experiment(Played(lag_s=0.02)).measured_capacity(silent)
    asked: list[float] = []

    def fire(load: float) -> Step:
        asked.append(load)
        return Step(load, load * 100, load * 100, valid=load < 1)

    found = measured_capacity(fire)
    assert found.per_s == pytest.approx(100 * asked[-2]) and not found.reached and asked[-1] >= 1


def test_one_bad_step_does_not_end_the_measurement() -> None:
    """Only two overloaded steps in a row end the measurement of capacity: one may be a burst."""
    kept = iter([True, False, True, True, False, False, True])

    def fire(load: float) -> Step:
        return Step(load, 100, 100 if next(kept) else 100 * KEPT_UP - 1, valid=True)

    assert [step.kept_up for step in measured_capacity(fire).steps] == [True, False, True, True, False, False]


def test_a_rate_that_is_given_has_no_capacity() -> None:
    """A scenario with a fixed rate has no capacity to measure, because no load is relative to it."""
    given = scenario(arrivals={"rate_per_s": 50.0})
    with pytest.raises(NothingOffered, match="its rate is fixed"):
        experiment(Played(), given).measured_capacity(silent)


def test_a_step_counts_what_came_and_what_was_answered_over_the_same_stretch() -> None:
    """A step counts offered and answered requests over one stretch of time, without the warm-up."""
    fire = Played()
    calls = [Call(at, 0, at / 10, "classify", 0.05, b"", {}) for at in range(50)]
    found = step_of(1.0, fire(Order("", calls, 1.0), silent), warmup_s=1.0, seconds=4.0)
    assert (found.offered_per_s, found.answered_per_s, found.kept_up) == (10.0, 10.0, True)
    slow = Played(per_s=5.0)(Order("", calls, 1.0), silent)
    behind = step_of(1.0, slow, warmup_s=1.0, seconds=4.0)
    assert behind.answered_per_s == pytest.approx(5.0, abs=0.26) and not behind.kept_up


def test_a_step_is_plain_and_long_enough_to_count() -> None:
    """A step of the capacity measurement is a Poisson stream of 4 s to 20 s, longer for slower mixtures."""
    ramp = scenario(arrivals={"process": "ramp", "ramp": (0.0, 2.0)}, cvs=(4.0,))
    fast, slow, slowest = (step_scenario(ramp, rate) for rate in (1000.0, 20.0, 1.0))
    assert fast.arrivals.process == "poisson" and fast.arrivals.ramp is None and fast.cvs == (1.0,)
    assert (fast.seconds, slow.seconds, slowest.seconds) == (4.0, 10.0, 20.0)


def test_numbers_given_at_the_command_line_are_held_to_the_scenarios_limits() -> None:
    """Options replace values of the scenario's file, and are checked by the limits of the scenario."""
    found = overridden(SHORT, {"loads": [2.0], "cvs": None, "seeds": [7], "seconds": 3.0})
    assert (found.loads, found.cvs, found.seeds, found.seconds) == ((2.0,), SHORT.cvs, (7,), 3.0)
    assert overridden(SHORT, {"loads": None}) is SHORT
    with pytest.raises(ScenarioError, match=r"--cvs\.0"):
        overridden(SHORT, {"cvs": [100.0]})
    poisson = scenario(arrivals={"process": "poisson"})
    with pytest.raises(ScenarioError, match="poisson"):
        overridden(poisson, {"cvs": [4.0]})


def test_a_neighbour_runs_from_its_second_to_the_end_of_the_run(tmp_path: Path) -> None:
    """The command beside a run starts once, at its instant, without a shell, and ends with the run."""
    mark = tmp_path / "it ran; twice"
    code = f"import time,pathlib; pathlib.Path({str(mark)!r}).touch(); time.sleep(60)"
    command = command_of(shlex.join([sys.executable, "-c", code]))
    with beside(command, 1.5) as neighbour:
        assert neighbour is not None
        neighbour.tick(1.4)
        assert neighbour.note == "the command beside was never due"
        neighbour.tick(1.6)
        neighbour.tick(1.7)
        wait_until(mark.exists)
        assert neighbour.note == ""
    assert "ended early, with status -15" in neighbour.note


def test_a_neighbour_that_ends_early_is_told_of() -> None:
    """A run notes when the command beside it ended early, because the rest of the run was without it."""
    neighbour = Neighbour((sys.executable, "-c", "raise SystemExit(3)"), 0.0)
    neighbour.tick(0.0)
    wait_until(lambda: bool(neighbour.note))
    assert neighbour.note == "the command beside ended early, with status 3"
    neighbour.end()


@pytest.mark.parametrize("text", ["", "no-such-command-here --x", "'unbalanced"])
def test_a_command_that_cannot_be_is_told_before_anything_runs(text: str) -> None:
    """A command that cannot be started is refused before any run."""
    with pytest.raises(NoNeighbour):
        command_of(text)


def test_a_neighbour_is_started_by_the_run() -> None:
    """A run starts the command beside it at its instant, and keeps the command's note."""
    terms = Terms("http://there", beside=(sys.executable, "-c", "import time; time.sleep(60)"), at_s=3.0)
    one = planned(SHORT, [FREE])[0]
    assert experiment(Played(), terms=terms).run(one, Capacity(200.0), silent).result.note == ""
    late = Terms("http://there", beside=terms.beside, at_s=13.0)
    note = experiment(Played(), terms=late).run(one, Capacity(200.0), silent).result.note
    assert note == "the command beside was never due"
