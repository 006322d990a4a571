"""Measures a latency profile: the service time of one engine on this host over a grid of batch shapes.

An engine that runs padded batches has one profile. An encoder-decoder has two: encoding with the first step, and each
later step. Shapes are visited in shuffled rounds, so that drift of the machine affects all alike. Clock and random
generator are passed in; a probe runs the engine at a shape and returns the cells that it measured.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np

from deployments.engines.base import Decoder, Engine, Seq2SeqEngine, SharesSteps, TokenIds
from deployments.engines.host import read_host
from gateway.model.manifest import SelfTest
from gateway.model.profile import LoneCell, LoneDocument, ProfileCell, ProfileDocument

BATCHES = (1, 2, 4, 8, 16)
LENGTHS = (8, 16, 32, 64, 128, 256, 512)
SAMPLES = 7
MOST_SAMPLES = 40
BUDGET_S = 8.0
LONE_BUDGET_SHARE = 0.25
"""The part of a profile's budget that lone runs may take on top of it. Set by hand."""

SEED = 20

READ_LENGTHS = (16, 32, 64, 128, 256, 512, 1024)
STEP_LENGTHS = (32, 128, 512)
ROWS = (1, 2, 4, 8)
STEPS = 6
"""Later steps per sample, at each number of rows. All are taken in one decoding, so that the source is encoded once
and all cells have the same mean number of generated tokens."""

COMPANIES = (1, 2, 4, 8)
"""Texts that step together, of one row each."""

TOKENS_AFTER = 1 + len(ROWS) * (1 + STEPS)
"""Tokens that such a decoding writes after those that it has read."""

READING_SHARE = 0.4

Clock = Callable[[], float]
Advance = Callable[[float], None]


@dataclass(frozen=True, order=True)
class Shape:
    """A batch shape: inputs × padded tokens."""

    batch: int
    tokens: int

    @property
    def area(self) -> int:
        """Tokens in the batch."""
        return self.batch * self.tokens


Probe = Callable[[Shape], Mapping[Shape, float]]
"""Runs an engine at a shape once, and returns the seconds of each profile cell that this measures."""


@dataclass(frozen=True)
class Watch:
    """The context of a measurement: clock, random generator, time budget in seconds, and progress callback.

    `beside` other work the clock is processor time, shared out over the threads of a usual run.
    """

    clock: Clock
    chance: random.Random
    budget_s: float = BUDGET_S
    advance: Advance = lambda _: None
    beside: bool = False

    def part(self, start: float, end: float) -> Watch:
        """The watch for the part of the measurement between the shares `start` and `end`."""
        share = end - start
        return replace(self, budget_s=self.budget_s * share, advance=lambda done: self.advance(start + share * done))


@dataclass
class _Visits:
    """The costs and samples of one shape's visits; `scaled` is an extrapolation if it was too slow to run."""

    costs: list[float] = field(default_factory=list)
    seen: dict[Shape, list[float]] = field(default_factory=dict)
    scaled: float | None = None

    @property
    def cost(self) -> float:
        """The expected seconds of one more visit: the median so far."""
        return median(self.costs)


def watch_here(budget_s: float, advance: Advance) -> Watch:
    """A watch with this host's clock and a fixed seed."""
    return Watch(time.perf_counter, random.Random(SEED), budget_s, advance)


def watch_beside(threads: int, budget_s: float, advance: Advance, processor_s: Clock = time.process_time) -> Watch:
    """A watch for an engine that runs on `threads` threads beside other work: its clock is processor time.

    What the engine waits for a processor is not its service time. The threads share it evenly, as engines' threads do.
    """
    return replace(watch_here(budget_s, advance), clock=lambda: processor_s() / threads, beside=True)


def measure_grid(engine: Engine, window: int, self_test: SelfTest, threads: int, watch: Watch) -> ProfileDocument:
    """The profile of an engine with padded batches on this host, on inputs made from the longest golden input."""
    longest = max((golden.token_ids for golden in self_test.golden), key=len)
    return measure_profile(engine, window, longest, threads, read_host().kind, watch)


def grid(window: int) -> list[Shape]:
    """Every batch size with every length; the window replaces longer lengths."""
    return [Shape(batch, length) for batch in BATCHES for length in _up_to(LENGTHS, window)]


def measure_profile(
    engine: Engine, window: int, token_ids: tuple[int, ...], threads: int, measured_on: str, watch: Watch
) -> ProfileDocument:
    """The profile over the full grid of an engine; inputs repeat `token_ids`. See `measure`."""

    def probe(shape: Shape) -> Mapping[Shape, float]:
        """Times one run of the engine, without making its input."""
        ids = batch_like(token_ids, shape)
        mask = np.ones_like(ids)
        started = watch.clock()
        engine.run(ids, mask)
        return {shape: watch.clock() - started}

    return ProfileDocument(threads=threads, measured_on=measured_on, cells=measure(grid(window), probe, watch))


def measure_lone(
    engine: Engine, lone: Engine, threads: tuple[int, int], window: int, self_test: SelfTest, watch: Watch
) -> LoneDocument:
    """How much faster an engine for lone runs is than one for usual runs, by the tokens of one text, in turns.

    `threads` are those of a usual and of a lone run. Each length has `SAMPLES` turns, fewer once the watch's budget is
    spent. The fastest turns are compared, which other work touches least; the gain is at most that of the threads.
    """
    token_ids = max((golden.token_ids for golden in self_test.golden), key=len)
    cells, started = [], watch.clock()
    for length in _up_to(LENGTHS, window):
        ids = batch_like(token_ids, Shape(1, length))
        mask = np.ones_like(ids)
        took_s: tuple[list[float], list[float]] = ([], [])
        for turn in range(SAMPLES + 1):
            if turn > 1 and watch.clock() - started > watch.budget_s:
                break
            for one, its_threads, seconds in zip((engine, lone), threads, took_s, strict=True):
                began_s = watch.clock()
                one.run(ids, mask)
                seconds.append((watch.clock() - began_s) * (threads[0] / its_threads if watch.beside else 1.0))
        usual_s, lone_s = (max(min(seconds[1:]), 1e-9) for seconds in took_s)  # the first turn warms both up
        cells.append(LoneCell(tokens=length, share=max(lone_s / usual_s, threads[0] / threads[1])))
    return LoneDocument(threads=threads[1], cells=tuple(cells))


def batch_like(token_ids: Sequence[int], shape: Shape) -> TokenIds:
    """A batch of equal rows made of a text's tokens: its first, its last, and between them what it has, repeated.

    Some classifiers read their answer at the token that ends a text, and fail without it.
    """
    row = np.resize(np.asarray(token_ids[1:-1] or token_ids, dtype=np.int64), shape.tokens)
    row[0], row[-1] = token_ids[0], token_ids[-1]
    return np.tile(row, (shape.batch, 1))


def measure(shapes: Iterable[Shape], probe: Probe, watch: Watch) -> tuple[ProfileCell, ...]:
    """Measures the cells of all shapes in about the watch's budget.

    Each shape is visited once, smallest first. Shuffled rounds follow, at least seven, as many as the budget allows;
    the cheapest shapes are visited several times a round. A visit that does not fit into the time left is skipped, so
    large shapes of a slow engine have fewer samples; a shape whose seven samples fit into its share of the budget
    always gets them. A batch that alone would exceed the budget is not run: its time is scaled in proportion from the
    largest measured batch of the same length, and counts as one sample.
    """
    visits = {shape: _Visits() for shape in shapes}
    for shape in _first_round(visits, probe, watch):
        visits[shape].scaled = _scaled(shape, visits)
    started, visit_order = watch.clock(), _visit_order(visits, watch)
    for place, shape in enumerate(visit_order):
        found = visits[shape]
        owed = len(found.costs) < SAMPLES and found.cost * SAMPLES <= watch.budget_s / len(visits)
        if owed or watch.clock() - started + found.cost <= watch.budget_s:
            _visit(shape, found, probe, watch.clock)
        watch.advance((place + 1) / len(visit_order))
    seen = {cell: samples for found in visits.values() for cell, samples in found.seen.items()}
    guessed = {shape: [found.scaled] for shape, found in visits.items() if found.scaled is not None}
    return tuple(_cell(shape, samples) for shape, samples in sorted((seen | guessed).items()))


def _first_round(visits: dict[Shape, _Visits], probe: Probe, watch: Watch) -> list[Shape]:
    """Warms the engine up and visits each shape once, smallest first; returns the shapes too slow to run."""
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


def _visit_order(visits: dict[Shape, _Visits], watch: Watch) -> Sequence[Shape]:
    """The order of all later visits: round by round, shuffled within each."""
    costs = {shape: found.cost for shape, found in visits.items() if found.costs}
    rounds = min(MOST_SAMPLES, max(SAMPLES, int(watch.budget_s / sum(costs.values())))) - 1
    cheap = watch.budget_s / len(costs) / MOST_SAMPLES
    visit_order: list[Shape] = []
    for _ in range(rounds):
        turn = [shape for shape, cost in costs.items() for _ in range(MOST_SAMPLES // rounds if cost <= cheap else 1)]
        watch.chance.shuffle(turn)
        visit_order += turn
    return visit_order


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


def measure_reading_and_steps(
    engine: Seq2SeqEngine,
    window: int,
    token_ids: tuple[int, ...],
    start_token: int,
    threads: int,
    measured_on: str,
    watch: Watch,
    searching: bool = True,
) -> tuple[ProfileDocument, ProfileDocument]:
    """Two profiles: of encoding with the first decode step, and of each later step.

    The first is by source tokens at batch size 1, the second by rows and source tokens. Both are made within about the
    watch's budget. Sources repeat `token_ids`. `searching` permutes the rows at each step, as beam search does. Raises
    what the engine raises.
    """
    first = np.asarray([start_token], dtype=np.int64)

    def read(shape: Shape) -> Mapping[Shape, float]:
        source = _source(token_ids, shape.tokens)
        started = watch.clock()
        _begun(engine, source, first)
        return {shape: watch.clock() - started}

    def step(shape: Shape) -> Mapping[Shape, float]:
        decoder = _begun(engine, _source(token_ids, shape.tokens), first)
        rows = list(ROWS)
        watch.chance.shuffle(rows)
        return {Shape(count, shape.tokens): _mean_step_s(decoder, count, token_ids, watch, searching) for count in rows}

    def profile(lengths: Iterable[int], probe: Probe, part: Watch) -> ProfileDocument:
        cells = measure([Shape(1, length) for length in _up_to(lengths, window)], probe, part)
        return ProfileDocument(threads=threads, measured_on=measured_on, cells=cells)

    reading, stepping = watch.part(0, READING_SHARE), watch.part(READING_SHARE, 1)
    return profile(READ_LENGTHS, read, reading), profile((*STEP_LENGTHS, window), step, stepping)


def measure_company(
    engine: Seq2SeqEngine,
    window: int,
    token_ids: tuple[int, ...],
    start_token: int,
    threads: int,
    measured_on: str,
    watch: Watch,
) -> ProfileDocument | None:
    """The profile of steps of several texts, by texts of one row each and by the tokens of their equal sources.

    It is made within about the watch's budget; None if the engine's texts cannot share steps. Raises what the engine
    raises.
    """
    if not isinstance(engine, SharesSteps) or not engine.shares_steps:
        return None
    sharing, row = engine, np.zeros(1, dtype=np.int64)

    def step(shape: Shape) -> Mapping[Shape, float]:
        first = _begun(engine, _source(token_ids, shape.tokens), np.asarray([start_token], dtype=np.int64))
        texts = [first, *(sharing.twin(first) for _ in range(max(COMPANIES) - 1))]
        pending = [(np.asarray([token_ids[0]], dtype=np.int64), row)] * len(texts)
        sizes, found = list(COMPANIES), {}
        watch.chance.shuffle(sizes)
        for size in sizes:
            sharing.step_together(texts[:size], pending[:size])
            started = watch.clock()
            for _ in range(STEPS):
                sharing.step_together(texts[:size], pending[:size])
            found[Shape(size, shape.tokens)] = (watch.clock() - started) / STEPS
        return found

    lengths = _up_to((*STEP_LENGTHS, window), window)
    cells = measure([Shape(1, length) for length in lengths], step, watch)
    return ProfileDocument(threads=threads, measured_on=measured_on, cells=cells)


def _mean_step_s(decoder: Decoder, rows: int, token_ids: tuple[int, ...], watch: Watch, searching: bool) -> float:
    """Mean seconds of a step with this number of rows, without the step that changes the number."""
    tokens = np.resize(np.asarray(token_ids, dtype=np.int64), rows)
    decoder.step(tokens, np.zeros(rows, dtype=np.int64))
    origins = np.arange(rows, dtype=np.int64)
    if searching:
        origins = origins[::-1].copy()
    started = watch.clock()
    for _ in range(STEPS):
        decoder.step(tokens, origins)
    return (watch.clock() - started) / STEPS


def _begun(engine: Seq2SeqEngine, source: TokenIds, first: TokenIds) -> Decoder:
    decoder = engine.encode(source)
    decoder.step(first, np.zeros(1, dtype=np.int64))
    return decoder


def _source(token_ids: tuple[int, ...], tokens: int) -> TokenIds:
    return np.resize(np.asarray(token_ids, dtype=np.int64), tokens)


def _up_to(lengths: Iterable[int], window: int) -> list[int]:
    """The lengths in order; the window replaces longer ones."""
    return sorted({min(length, window) for length in lengths})
