"""Races the engines that could run a checkpoint on this host, and orders them by what a request would wait for.

One rule: the engine whose mean run over `MIXTURE` is shortest goes first, unless one that the catalog prefers is nearly
as fast. One engine serves all lengths. One for short texts beside one for long ones would not pay: on a processor with
AMX, where they differ most, int8 for the shapes that it wins beside bf16 for the others takes 4 to 5 % off the mean run
of bf16 alone, and 33 to 47 MB more in every replica.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import psutil

from deployments.engines.base import Engine
from exporters.errors import ExportFailed
from exporters.plan import Candidate
from exporters.profiling import Shape, Watch, batch_like
from gateway.model.manifest import EngineChoice, RacedEngine, RacedShape

MIXTURE = {Shape(1, 16): 0.40, Shape(1, 64): 0.25, Shape(1, 128): 0.10, Shape(8, 32): 0.20, Shape(1, 512): 0.05}
"""The share of each shape in the engine's runs: an assumption, not a measurement. Most requests are a sentence or a
paragraph alone, a fifth of the runs are batches of a busy gateway, and a few texts fill the window."""

CLEARLY = 1.1
"""How many times as fast as an engine that the catalog prefers another must be. Races on a busy machine differ by as
much, and another library costs memory."""

RULE = f"the shortest mean run by shares; a less preferred engine only if {CLEARLY:g} times as fast"
LEAST_ROUNDS, MOST_ROUNDS = 3, 40
UNABLE = (ImportError, OSError, RuntimeError, ValueError)
"""What engines raise that cannot be opened, or cannot run a graph."""


@dataclass(frozen=True)
class Race:
    """The engines that could be opened, and what was measured of every candidate, in order of preference."""

    engines: Mapping[Candidate, Engine]
    found: Mapping[Candidate, RacedEngine]

    def ranked(self) -> list[Candidate]:
        """The engines from the one to take to the last resort."""
        left = {one: found.mean_s for one, found in self.found.items() if found.mean_s is not None}
        order: list[Candidate] = []
        while left:
            first = best = next(iter(left))
            for one, mean_s in left.items():
                if one is not first and mean_s * CLEARLY <= left[best]:
                    best = one
            order.append(best)
            del left[best]
        return order

    def choice(self, measured_on: str, threads: int, agreements: Mapping[Candidate, float]) -> EngineChoice:
        """The record for the manifest; `agreements` are those of the candidates that were verified."""
        raced = tuple(
            found.model_copy(update={"label_agreement": agreements.get(one)}) for one, found in self.found.items()
        )
        return EngineChoice(measured_on=measured_on, threads=threads, rule=RULE, raced=raced)


def mixture(window: int) -> dict[Shape, float]:
    """The shapes with their shares; the window replaces longer lengths."""
    shares: dict[Shape, float] = {}
    for shape, share in MIXTURE.items():
        within = Shape(shape.batch, min(shape.tokens, window))
        shares[within] = shares.get(within, 0.0) + share
    return shares


def race(
    candidates: Sequence[Candidate],
    open_engine: Callable[[Candidate], Engine],
    window: int,
    token_ids: Sequence[int],
    watch: Watch,
) -> Race:
    """Opens the candidates and times them in turns, in about the watch's budget; inputs repeat `token_ids`.

    Every round runs every shape once on each engine, the engines in shuffled order. The least time counts: what a
    neighbour's work adds is not the engine's. A candidate that cannot be opened is recorded with the reason. Raises
    ExportFailed if none can.
    """
    shares = mixture(window)
    engines: dict[Candidate, Engine] = {}
    memory: dict[Candidate, int] = {}
    failed: dict[Candidate, str] = {}
    for one in candidates:
        before = psutil.Process().memory_info().rss
        try:
            engine = open_engine(one)
            for shape in shares:
                _timed(engine, shape, token_ids, watch)
        except UNABLE as error:
            failed[one] = next(iter(str(error).splitlines()), "") or type(error).__name__
            continue
        engines[one] = engine
        memory[one] = max(0, psutil.Process().memory_info().rss - before)
    if not engines:
        raise ExportFailed("no engine can run it: " + "; ".join(f"{one.variant}: {why}" for one, why in failed.items()))
    times = _rounds(engines, list(shares), token_ids, watch)
    found = {
        one: RacedEngine(variant=one.variant, failed=failed[one])
        if one in failed
        else _raced(one, shares, times[one], memory[one])
        for one in candidates
    }
    return Race(engines, found)


def _rounds(
    engines: Mapping[Candidate, Engine], shapes: Sequence[Shape], token_ids: Sequence[int], watch: Watch
) -> dict[Candidate, dict[Shape, list[float]]]:
    times: dict[Candidate, dict[Shape, list[float]]] = {one: {shape: [] for shape in shapes} for one in engines}
    began, turn = watch.clock(), list(engines)
    for done in range(1, MOST_ROUNDS + 1):
        for shape in shapes:
            watch.chance.shuffle(turn)
            for one in turn:
                times[one][shape].append(_timed(engines[one], shape, token_ids, watch))
        spent = watch.clock() - began
        watch.advance(min(1.0, max(done / MOST_ROUNDS, spent / watch.budget_s)))
        if done >= LEAST_ROUNDS and spent * (1 + 1 / done) > watch.budget_s:
            break
    return times


def _timed(engine: Engine, shape: Shape, token_ids: Sequence[int], watch: Watch) -> float:
    ids = batch_like(token_ids, shape)
    mask = np.ones_like(ids)
    began = watch.clock()
    engine.run(ids, mask)
    return max(watch.clock() - began, 1e-9)


def _raced(
    one: Candidate, shares: Mapping[Shape, float], times: Mapping[Shape, Sequence[float]], memory_bytes: int
) -> RacedEngine:
    shapes = tuple(
        RacedShape(batch=shape.batch, tokens=shape.tokens, share=share, least_s=min(times[shape]))
        for shape, share in shares.items()
    )
    mean_s = sum(at.share * at.least_s for at in shapes)
    return RacedEngine(variant=one.variant, mean_s=mean_s, shapes=shapes, memory_bytes=memory_bytes)


def in_words(choice: EngineChoice, chosen: str) -> str:
    """One line: the chosen engine, its mean run, and those of the others."""
    found = {one.variant: one for one in choice.raced}
    others = ", ".join(_other(one) for name, one in found.items() if name != chosen)
    return f"{chosen}, {_other(found[chosen]).removeprefix(chosen).strip()} a run on average ({others})"


def _other(one: RacedEngine) -> str:
    if one.mean_s is None:
        return f"{one.variant} failed: {one.failed}"
    return f"{one.variant} {one.mean_s * 1000:.3g} ms"
