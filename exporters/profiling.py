"""Measuring a latency profile: the service time of one engine on this host over a full grid of shapes.

Shapes are visited in shuffled rounds, so that a drift of the machine spreads over all of them and bends none. Time and
chance come in from outside; what is run at a shape, and which cells that fills, is the probe's business.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from deployments.engines.base import Engine
from gateway.model.profile import ProfileCell, ProfileDocument

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


Probe = Callable[[Shape], Mapping[Shape, float]]
"""Runs an engine at a shape once; the seconds it found, by the cells of the profile that they are of."""


@dataclass(frozen=True)
class Watch:
    """Who measures: the clock, the chance that shuffles, the seconds to spend, and who hears how far it is."""

    clock: Clock
    chance: random.Random
    budget_s: float = BUDGET_S
    advance: Advance = lambda _: None


@dataclass
class _Visits:
    """What the visits of one shape cost and found, by cell; `scaled` is a guess where it was too dear to run."""

    costs: list[float] = field(default_factory=list)
    seen: dict[Shape, list[float]] = field(default_factory=dict)
    scaled: float | None = None

    @property
    def cost(self) -> float:
        """What one more visit will take, going by those so far."""
        return median(self.costs)


def grid(window: int) -> list[Shape]:
    """Every batch size with every length, the window itself in place of the lengths past it."""
    lengths = sorted({min(length, window) for length in LENGTHS})
    return [Shape(batch, length) for batch in BATCHES for length in lengths]


def measure_profile(
    engine: Engine, window: int, token_ids: tuple[int, ...], threads: int, measured_on: str, watch: Watch
) -> ProfileDocument:
    """The full grid of an engine; `token_ids`, repeated, make the inputs. See `measure`."""

    def probe(shape: Shape) -> Mapping[Shape, float]:
        """One run of the engine, the making of its input not counted."""
        ids = np.resize(np.asarray(token_ids, dtype=np.int64), (shape.batch, shape.tokens))
        mask = np.ones_like(ids)
        started = watch.clock()
        engine.run(ids, mask)
        return {shape: watch.clock() - started}

    return ProfileDocument(threads=threads, measured_on=measured_on, cells=measure(grid(window), probe, watch))


def measure(shapes: Iterable[Shape], probe: Probe, watch: Watch) -> tuple[ProfileCell, ...]:
    """The cells that the probe fills at all these shapes, measured in about the watch's budget.

    Every shape is visited once, smallest first. Then come shuffled rounds, as many as the budget has room for (at
    least seven), in which the cheapest shapes are visited several times; what no longer fits into the time left is
    passed over, so that of a slow engine's large shapes there are fewer samples, but a shape whose seven samples are
    within its share of the budget gets them in any case. A batch that alone would overrun the budget is not run: it is
    taken from the same length at the largest batch that was, in proportion, and bears one sample.
    """
    visits = {shape: _Visits() for shape in shapes}
    for shape in _first_round(visits, probe, watch):
        visits[shape].scaled = _scaled(shape, visits)
    started, turns = watch.clock(), _turns(visits, watch)
    for place, shape in enumerate(turns):
        found = visits[shape]
        owed = len(found.costs) < SAMPLES and found.cost * SAMPLES <= watch.budget_s / len(visits)
        if owed or watch.clock() - started + found.cost <= watch.budget_s:
            _visit(shape, found, probe, watch.clock)
        watch.advance((place + 1) / len(turns))
    seen = {cell: samples for found in visits.values() for cell, samples in found.seen.items()}
    guessed = {shape: [found.scaled] for shape, found in visits.items() if found.scaled is not None}
    return tuple(_cell(shape, samples) for shape, samples in sorted((seen | guessed).items()))


def _first_round(visits: dict[Shape, _Visits], probe: Probe, watch: Watch) -> list[Shape]:
    """Warms the engine up and visits each shape once, smallest first; gives back those too dear to run at all."""
    shapes = sorted(visits, key=lambda shape: (shape.area, shape.batch))
    for _ in range(3):
        probe(shapes[0])
    dear: list[Shape] = []
    per_token = 0.0
    for shape in shapes:
        if shape.batch > 1 and per_token * shape.area > watch.budget_s:
            dear.append(shape)
            continue
        _visit(shape, visits[shape], probe, watch.clock)
        per_token = visits[shape].cost / shape.area
    return dear


def _turns(visits: dict[Shape, _Visits], watch: Watch) -> Sequence[Shape]:
    """The order of all visits after the first: round by round, shuffled within each."""
    costs = {shape: found.cost for shape, found in visits.items() if found.costs}
    rounds = min(MOST_SAMPLES, max(SAMPLES, int(watch.budget_s / sum(costs.values())))) - 1
    cheap = watch.budget_s / len(costs) / MOST_SAMPLES
    turns: list[Shape] = []
    for _ in range(rounds):
        turn = [shape for shape, cost in costs.items() for _ in range(MOST_SAMPLES // rounds if cost <= cheap else 1)]
        watch.chance.shuffle(turn)
        turns += turn
    return turns


def _visit(shape: Shape, found: _Visits, probe: Probe, clock: Clock) -> None:
    started = clock()
    samples = probe(shape)
    found.costs.append(max(clock() - started, 1e-9))
    for cell, seconds in samples.items():
        found.seen.setdefault(cell, []).append(max(seconds, 1e-9))


def _scaled(shape: Shape, visits: dict[Shape, _Visits]) -> float:
    known = max(s for s, found in visits.items() if s.tokens == shape.tokens and found.costs)
    return median(visits[known].seen[known]) * shape.batch / known.batch


def _cell(shape: Shape, seen: list[float]) -> ProfileCell:
    return ProfileCell(
        batch=shape.batch,
        tokens=shape.tokens,
        samples=len(seen),
        p50_s=median(seen),
        p95_s=float(np.quantile(seen, 0.95)),
        min_s=min(seen),
        max_s=max(seen),
    )
