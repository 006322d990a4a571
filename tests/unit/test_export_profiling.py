"""Laws of the latency profile's measurement, on an engine whose time is the test's."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest

from deployments.engines.base import Logits, TokenIds
from exporters.profiling import LENGTHS, MOST_SAMPLES, SAMPLES, Shape, Watch, grid, measure_profile
from gateway.model.profile import LatencyProfile, ProfileCell, ProfileDocument


@dataclass
class Machine:
    """An engine and a clock in one: a run takes `per_token_s` for each token, from `drift_at_s` on twice that."""

    per_token_s: float
    drift_at_s: float = float("inf")
    now: float = 0.0
    runs: list[Shape] = field(default_factory=list)

    def run(self, token_ids: TokenIds, attention_mask: TokenIds) -> Logits:
        assert token_ids.shape == attention_mask.shape and attention_mask.all()
        self.runs.append(Shape(*token_ids.shape))
        self.now += self.per_token_s * token_ids.size * (2 if self.now >= self.drift_at_s else 1)
        return np.zeros((len(token_ids), 2), dtype=np.float32)

    def clock(self) -> float:
        return self.now

    def profile(self, window: int = 512, budget_s: float = 12.0) -> ProfileDocument:
        """What is measured of it."""
        watch = Watch(self.clock, random.Random(1), budget_s)
        return measure_profile(self, window, (5, 6, 7), 1, "here", watch)


@pytest.mark.parametrize("window", [2, 8, 100, 128, 512, 4096])
def test_the_grid_is_full_and_ends_at_the_window(window: int) -> None:
    """Every batch size meets every length, and no length passes the window."""
    lengths = {shape.tokens for shape in grid(window)}
    assert len(grid(window)) == 5 * len(lengths)
    assert max(lengths) == min(window, LENGTHS[-1])
    LatencyProfile.from_document(Machine(1e-6).profile(window, budget_s=0.1))


def test_a_small_engine_is_sampled_enough_within_the_budget() -> None:
    """At 40 µs a token every cell gets its seven samples, the cheap ones more, in the budget and one first round."""
    machine = Machine(40e-6)
    cells = machine.profile().cells
    assert min(cell.samples for cell in cells) >= SAMPLES
    assert max(cell.samples for cell in cells) >= MOST_SAMPLES - 5
    assert machine.now <= 12.0 + 40e-6 * sum(shape.area for shape in grid(512)) + 0.1


def test_the_median_is_the_engine_s_time() -> None:
    """What a steady engine takes is what its profile says."""
    for cell in Machine(40e-6).profile().cells:
        assert cell.min_s <= cell.p50_s <= cell.p95_s <= cell.max_s
        assert cell.p50_s == pytest.approx(40e-6 * cell.batch * cell.tokens)


def test_a_drift_spreads_over_all_cells() -> None:
    """When the machine slows down half way, no well-sampled cell is measured wholly before or wholly after."""
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
    """However long its large shapes take, the small ones that most requests have are measured seven times."""
    cells = {Shape(cell.batch, cell.tokens): cell for cell in Machine(0.002).profile(budget_s=12.0).cells}
    assert cells[Shape(1, 8)].samples >= SAMPLES and cells[Shape(1, 16)].samples >= SAMPLES
    assert cells[Shape(16, 512)].samples < SAMPLES


def test_what_was_measured_can_be_written_down() -> None:
    """The cells of a profile survive JSON."""
    document = Machine(1e-6).profile(budget_s=0.01)
    assert ProfileDocument.model_validate_json(document.model_dump_json()) == document
    assert isinstance(document.cells[0], ProfileCell)
