"""Measuring a latency profile: the service time of one engine on this host over a full grid of shapes.

Cells are visited in shuffled rounds, so that a drift of the machine spreads over all of them and bends none. Time and
chance come in from outside.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from deployments.engines.port import Engine
from gateway.profile import ProfileCell, ProfileDocument

BATCHES = (1, 2, 4, 8, 16)
LENGTHS = (8, 16, 32, 64, 128, 256, 512)
SAMPLES = 7
MOST_SAMPLES = 40
BUDGET_S = 8.0
SEED = 20

Clock = Callable[[], float]
Advance = Callable[[float], None]


@dataclass(frozen=True, order=True)
class Shape:
    """One shape of batch: inputs by padded tokens."""

    batch: int
    tokens: int

    @property
    def area(self) -> int:
        """Tokens in the batch."""
        return self.batch * self.tokens


@dataclass
class _Samples:
    """What has been seen of one shape; `scaled` is a guess from a smaller batch, where it was too dear to run."""

    seen: list[float] = field(default_factory=list)
    scaled: float | None = None

    @property
    def cost(self) -> float:
        """What one more run will take, going by the runs so far."""
        return median(self.seen)


def grid(window: int) -> list[Shape]:
    """Every batch size with every length, the window itself in place of the lengths past it."""
    lengths = sorted({min(length, window) for length in LENGTHS})
    return [Shape(batch, length) for batch in BATCHES for length in lengths]


def measure_profile(
    engine: Engine,
    window: int,
    token_ids: tuple[int, ...],
    threads: int,
    measured_on: str,
    clock: Clock,
    chance: random.Random,
    budget_s: float = BUDGET_S,
    advance: Advance = lambda _: None,
) -> ProfileDocument:
    """The full grid, measured in about `budget_s` seconds; `token_ids`, repeated, make the inputs.

    Every shape is run once, smallest first. Then come shuffled rounds, as many as the budget has room for (at least
    seven), in which the cheapest shapes run several times; what no longer fits into the time left is passed over, so
    that of a slow engine's large shapes there are fewer samples, but a shape whose seven samples are within its share
    of the budget gets them in any case. A shape that alone would overrun the budget is not
    run: it is taken from the same length at the largest batch that was, in proportion, and bears one sample.
    """
    samples = {shape: _Samples() for shape in grid(window)}
    for shape in _first_round(engine, samples, token_ids, clock, budget_s):
        samples[shape].scaled = _scaled(shape, samples)
    started, turns = clock(), _turns(samples, chance, budget_s)
    for place, shape in enumerate(turns):
        found = samples[shape]
        owed = len(found.seen) < SAMPLES and found.cost * SAMPLES <= budget_s / len(samples)
        if owed or clock() - started + found.cost <= budget_s:
            samples[shape].seen.append(_timed(engine, shape, token_ids, clock))
        advance((place + 1) / len(turns))
    cells = tuple(_cell(shape, found) for shape, found in samples.items())
    return ProfileDocument(threads=threads, measured_on=measured_on, cells=cells)


def _first_round(
    engine: Engine, samples: dict[Shape, _Samples], token_ids: tuple[int, ...], clock: Clock, budget_s: float
) -> list[Shape]:
    """Warms the engine up and runs each shape once, smallest first; gives back those too dear to run at all."""
    shapes = sorted(samples, key=lambda shape: (shape.area, shape.batch))
    for _ in range(3):
        _timed(engine, shapes[0], token_ids, clock)
    dear: list[Shape] = []
    per_token = 0.0
    for shape in shapes:
        if shape.batch > 1 and per_token * shape.area > budget_s:
            dear.append(shape)
            continue
        seconds = _timed(engine, shape, token_ids, clock)
        per_token = seconds / shape.area
        samples[shape].seen.append(seconds)
    return dear


def _turns(samples: dict[Shape, _Samples], chance: random.Random, budget_s: float) -> list[Shape]:
    """The order of all runs after the first: round by round, shuffled within each."""
    costs = {shape: found.cost for shape, found in samples.items() if found.seen}
    rounds = min(MOST_SAMPLES, max(SAMPLES, int(budget_s / sum(costs.values())))) - 1
    cheap = budget_s / len(costs) / MOST_SAMPLES
    turns: list[Shape] = []
    for _ in range(rounds):
        turn = [shape for shape, cost in costs.items() for _ in range(MOST_SAMPLES // rounds if cost <= cheap else 1)]
        chance.shuffle(turn)
        turns += turn
    return turns


def _timed(engine: Engine, shape: Shape, token_ids: tuple[int, ...], clock: Clock) -> float:
    """Seconds of one run of the engine, the making of its input not counted."""
    ids = np.resize(np.asarray(token_ids, dtype=np.int64), (shape.batch, shape.tokens))
    mask = np.ones_like(ids)
    started = clock()
    engine.run(ids, mask)
    return max(clock() - started, 1e-9)


def _scaled(shape: Shape, samples: dict[Shape, _Samples]) -> float:
    known = max(s for s, found in samples.items() if s.tokens == shape.tokens and found.seen)
    return median(samples[known].seen) * shape.batch / known.batch


def _cell(shape: Shape, found: _Samples) -> ProfileCell:
    seen = found.seen or [found.scaled or 0.0]
    return ProfileCell(
        batch=shape.batch,
        tokens=shape.tokens,
        samples=len(seen),
        p50_s=median(seen),
        p95_s=float(np.quantile(seen, 0.95)),
        min_s=min(seen),
        max_s=max(seen),
    )
