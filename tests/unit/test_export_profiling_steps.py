"""Laws of the two profiles of an encoder-decoder, on an engine whose time is the test's."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest

from deployments.engines.base import Logits, TokenIds
from exporters.profiling import SAMPLES, Watch
from exporters.profiling_steps import ROWS, STEPS, measure_reading_and_steps
from gateway.model.profile import LatencyProfile, ProfileDocument


@dataclass
class Machine:
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
        """What is measured of it."""
        watch = Watch(lambda: self.now, random.Random(1), budget_s, self.told.append)
        return measure_reading_and_steps(self, window, (5, 6, 7), 2, 1, "here", watch)


@dataclass
class Reading:
    machine: Machine
    tokens: int
    rows: int = 1

    def step(self, tokens: TokenIds, origins: TokenIds) -> Logits:
        assert len(tokens) == len(origins) and origins.min() >= 0 and origins.max() < self.rows
        self.rows = len(tokens)
        self.machine.now += self.machine.step_s * self.rows + self.machine.token_s * self.tokens
        return np.zeros((self.rows, 9), dtype=np.float32)


@pytest.mark.parametrize(("window", "lengths"), [(1024, (32, 128, 512, 1024)), (512, (32, 128, 512)), (20, (20,))])
def test_both_grids_are_full_and_end_at_the_window(window: int, lengths: tuple[int, ...]) -> None:
    """Reading at one row, later steps at every number of rows for every length of the source."""
    reading, steps = map(LatencyProfile.from_document, Machine().profiles(window))
    assert (reading.batches, reading.lengths[-1]) == ((1,), window)
    assert (steps.batches, steps.lengths) == (ROWS, lengths)


def test_what_is_measured_is_the_engine_s_time() -> None:
    """Reading has its first step in it; a later step has neither the reading nor the forking of rows."""
    reading, steps = Machine().profiles(1024, budget_s=30.0)
    for cell in reading.cells:
        assert cell.p50_s == pytest.approx(1e-4 * cell.tokens + 1e-3 + 1e-5 * cell.tokens)
    for cell in steps.cells:
        assert cell.p50_s == pytest.approx(1e-3 * cell.batch + 1e-5 * cell.tokens)
        assert cell.samples >= SAMPLES


def test_a_slow_engine_is_read_once_for_all_rows() -> None:
    """However slow it is, every length is measured, and no more than that once the budget is gone."""
    machine = Machine(read_s=0.01, step_s=0.1)
    _, steps = machine.profiles(1024, budget_s=2.0)
    assert len(steps.cells) == 4 * len(ROWS)
    assert machine.reads.count(1024) == 2  # once to read, once for the steps
    assert machine.now < 60 + 4 * STEPS * sum(ROWS)


def test_progress_is_told_from_start_to_end() -> None:
    """First the one profile's share, then the other's."""
    machine = Machine()
    machine.profiles(64, budget_s=1.0)
    assert machine.told == sorted(machine.told) and machine.told[-1] == pytest.approx(1.0)
