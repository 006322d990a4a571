"""Laws of measuring latency profiles, on an engine with a simulated clock."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from deployments.engines.base import Logits, TokenIds
from exporters.profiling import (
    LENGTHS,
    MOST_SAMPLES,
    ROWS,
    SAMPLES,
    STEPS,
    Shape,
    Watch,
    grid,
    measure_lone,
    measure_profile,
    measure_reading_and_steps,
    watch_beside,
)
from gateway.model.manifest import GoldenInput, SelfTest
from gateway.model.profile import LatencyProfile, ProfileCell, ProfileDocument


@dataclass
class Machine:
    """An engine and a clock in one: a run takes `per_token_s` for each token, from `drift_at_s` on twice that."""

    per_token_s: float
    drift_at_s: float = float("inf")
    now: float = 0.0
    runs: list[Shape] = field(default_factory=list)

    def run(self, token_ids: TokenIds, attention_mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        assert token_ids.shape == attention_mask.shape and attention_mask.all()
        self.runs.append(Shape(*token_ids.shape))
        self.now += self.per_token_s * token_ids.size * (2 if self.now >= self.drift_at_s else 1)
        return np.zeros((len(token_ids), 2), dtype=np.float32)

    def clock(self) -> float:
        return self.now

    def profile(self, window: int = 512, budget_s: float = 12.0) -> ProfileDocument:
        """Measures the profile of this machine."""
        watch = Watch(self.clock, random.Random(1), budget_s)
        return measure_profile(self, window, (5, 6, 7), 1, "here", watch)


@pytest.mark.parametrize(("beside", "share"), [(False, 0.625), (True, 0.5)])
def test_lone_runs_are_a_share_of_usual_ones(beside: bool, share: float) -> None:
    """Lone runs are measured in turns with usual ones; by processor time their threads share what they take.

    Two threads are never more than twice as fast.
    """
    machine = Machine(40e-6)

    class Lone:
        """Runs on the same machine in five eighths of the time."""

        def run(self, token_ids: TokenIds, attention_mask: TokenIds, types: TokenIds | None = None) -> Logits:
            before = machine.now
            logits = machine.run(token_ids, attention_mask)
            machine.now = before + 0.625 * (machine.now - before)
            return logits

    self_test = SelfTest(tolerance=0.1, golden=(GoldenInput(text="a", token_ids=(5, 6, 7), logits=(0.0, 1.0)),))
    watch = Watch(machine.clock, random.Random(1), 12.0, beside=beside)
    measured = measure_lone(machine, Lone(), (1, 2), 100, self_test, watch)
    assert measured.threads == 2 and [cell.tokens for cell in measured.cells] == [8, 16, 32, 64, 100]
    assert all(cell.share == pytest.approx(share) for cell in measured.cells)
    spent = measure_lone(machine, Lone(), (1, 2), 100, self_test, replace(watch, budget_s=0.0))
    assert len(spent.cells) == 5, "each length has its turn even so"


@pytest.mark.parametrize("window", [2, 8, 100, 128, 512, 4096])
def test_the_grid_is_full_and_ends_at_the_window(window: int) -> None:
    """Every batch size meets every length, and no length passes the window."""
    lengths = {shape.tokens for shape in grid(window)}
    assert len(grid(window)) == 5 * len(lengths)
    assert max(lengths) == min(window, LENGTHS[-1])
    LatencyProfile.from_document(Machine(1e-6).profile(window, budget_s=0.1))


def test_a_small_engine_is_sampled_enough_within_the_budget() -> None:
    """At 40 µs a token every cell gets at least seven samples within the budget, and cheap cells more."""
    machine = Machine(40e-6)
    cells = machine.profile().cells
    assert min(cell.samples for cell in cells) >= SAMPLES
    assert max(cell.samples for cell in cells) >= MOST_SAMPLES - 5
    assert machine.now <= 12.0 + 40e-6 * sum(shape.area for shape in grid(512)) + 0.1


def test_the_median_is_the_engine_s_time() -> None:
    """The profile of a steady engine has the engine's own service times."""
    for cell in Machine(40e-6).profile().cells:
        assert cell.min_s <= cell.p50_s <= cell.p95_s <= cell.max_s
        assert cell.p50_s == pytest.approx(40e-6 * cell.batch * cell.tokens)


def test_a_drift_spreads_over_all_cells() -> None:
    """When the machine slows down half way, every well-sampled cell has samples from before and after."""
    cells = Machine(20e-6, drift_at_s=6.0).profile().cells
    assert all(cell.max_s == pytest.approx(2 * cell.min_s) for cell in cells)


def test_a_slow_engine_still_gets_a_full_grid() -> None:
    """Cells that alone would overrun the budget are not run but scaled from a smaller batch of the same length."""
    machine = Machine(0.01)
    cells = {Shape(cell.batch, cell.tokens): cell for cell in machine.profile(budget_s=12.0).cells}
    assert set(cells) == set(grid(512))
    assert Shape(16, 512) not in machine.runs
    assert cells[Shape(16, 512)].samples == 1
    assert cells[Shape(16, 512)].p50_s == pytest.approx(0.01 * 16 * 512)


def test_cheap_shapes_of_a_slow_engine_are_sampled_enough() -> None:
    """Small shapes, which most requests have, get seven samples even where large shapes use up the budget."""
    cells = {Shape(cell.batch, cell.tokens): cell for cell in Machine(0.002).profile(budget_s=12.0).cells}
    assert cells[Shape(1, 8)].samples >= SAMPLES and cells[Shape(1, 16)].samples >= SAMPLES
    assert cells[Shape(16, 512)].samples < SAMPLES


def test_what_was_measured_can_be_written_down() -> None:
    """A profile survives conversion to JSON and back."""
    document = Machine(1e-6).profile(budget_s=0.01)
    assert ProfileDocument.model_validate_json(document.model_dump_json()) == document
    assert isinstance(document.cells[0], ProfileCell)


@dataclass
class Writer:
    """Engine and clock in one: reading takes `read_s` a token, a step `step_s` a row and `token_s` a token read."""

    read_s: float = 1e-4
    step_s: float = 1e-3
    token_s: float = 1e-5
    now: float = 0.0
    reads: list[int] = field(default_factory=list)
    told: list[float] = field(default_factory=list)

    def encode(self, token_ids: TokenIds) -> Reading:
        self.now += self.read_s * len(token_ids)
        self.reads.append(len(token_ids))
        return Reading(self, len(token_ids))

    def profiles(self, window: int, budget_s: float = 10.0) -> tuple[ProfileDocument, ProfileDocument]:
        """Measures both profiles: reading and steps."""
        watch = Watch(lambda: self.now, random.Random(1), budget_s, self.told.append)
        return measure_reading_and_steps(self, window, (5, 6, 7), 2, 1, "here", watch)


@dataclass
class Reading:
    machine: Writer
    tokens: int
    rows: int = 1

    def step(self, tokens: TokenIds, origins: TokenIds) -> Logits:
        assert len(tokens) == len(origins) and origins.min() >= 0 and origins.max() < self.rows
        self.rows = len(tokens)
        self.machine.now += self.machine.step_s * self.rows + self.machine.token_s * self.tokens
        return np.zeros((self.rows, 9), dtype=np.float32)


@pytest.mark.parametrize(("window", "lengths"), [(1024, (32, 128, 512, 1024)), (512, (32, 128, 512)), (20, (20,))])
def test_both_grids_are_full_and_end_at_the_window(window: int, lengths: tuple[int, ...]) -> None:
    """Reading is measured for one row; steps for every number of rows and every length."""
    reading, steps = map(LatencyProfile.from_document, Writer().profiles(window))
    assert (reading.batches, reading.lengths[-1]) == ((1,), window)
    assert (steps.batches, steps.lengths) == (ROWS, lengths)


def test_what_is_measured_is_the_engine_s_time() -> None:
    """A reading includes its first step; a later step includes neither the reading nor the forking of rows."""
    reading, steps = Writer().profiles(1024, budget_s=30.0)
    for cell in reading.cells:
        assert cell.p50_s == pytest.approx(1e-4 * cell.tokens + 1e-3 + 1e-5 * cell.tokens)
    for cell in steps.cells:
        assert cell.p50_s == pytest.approx(1e-3 * cell.batch + 1e-5 * cell.tokens)
        assert cell.samples >= SAMPLES


def test_a_slow_engine_is_read_once_for_all_rows() -> None:
    """A slow engine reads each length once, and every length is measured even when the budget is used up."""
    machine = Writer(read_s=0.01, step_s=0.1)
    _, steps = machine.profiles(1024, budget_s=2.0)
    assert len(steps.cells) == 4 * len(ROWS)
    assert machine.reads.count(1024) == 2  # once for the reading, once for the steps
    assert machine.now < 60 + 4 * STEPS * sum(ROWS)


def test_progress_is_told_from_start_to_end() -> None:
    """Progress grows from the first profile to the end of the second."""
    machine = Writer()
    machine.profiles(64, budget_s=1.0)
    assert machine.told == sorted(machine.told) and machine.told[-1] == pytest.approx(1.0)


def test_beside_other_work_the_clock_is_processor_time() -> None:
    """A profile that is measured beside a gateway counts the engine's processor time, divided by its threads."""
    machine = Machine(0.0, now=8.0)
    one, four = (watch_beside(threads, 1.0, lambda share: None, machine.clock) for threads in (1, 4))
    assert (one.clock(), four.clock()) == (8.0, 2.0)
