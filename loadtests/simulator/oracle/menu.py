"""Lower bounds on the core-seconds of each request, by variant, under any plan: the premises of the bound.

Knows requests and medians. Knows no plan: every figure must hold for any plan, so none may be too large.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from loadtests.workload.arrivals import Offered
from loadtests.workload.variants import Variant

Floats = npt.NDArray[np.float64]
_HAIR_S = 1e-9
"""The tolerance of comparisons, so that rounding never excludes a run that just fits."""


@dataclass(frozen=True)
class Menus:
    """The time window of each counted request, and its least core-seconds on each variant.

    Shapes: `opens_s` and `closes_s` (requests,), `costs_s` (requests, variants), `utilities` (variants,). A cost is
    infinite if the variant cannot answer the request in time.
    """

    requests: tuple[Offered, ...]
    opens_s: Floats
    closes_s: Floats
    utilities: npt.NDArray[np.float64]
    costs_s: Floats

    @cached_property
    def hopeful(self) -> Menus:
        """The requests that some variant could answer in time."""
        keep = np.unique(np.nonzero(np.isfinite(self.costs_s))[0])
        requests = tuple(self.requests[place] for place in keep)
        return Menus(requests, self.opens_s[keep], self.closes_s[keep], self.utilities, self.costs_s[keep])


def menus(
    offered: Sequence[Offered],
    variants: Sequence[Variant],
    overhead_s: float,
    counted: Callable[[Offered], bool],
    utility: Callable[[Variant], float],
    fastest: float = 1.0,
) -> Menus:
    """The menus of the counted requests; the others count only as companions in a batch.

    `fastest` is the least share of its median that a run may take; it only decides what fits into a budget.
    """
    wanted = np.array([counted(request) for request in offered], dtype=bool)
    opens_s = np.array([request.arrived_s for request in offered])
    closes_s = np.array([request.deadline_s - overhead_s for request in offered])
    costs_s = np.full((len(offered), len(variants)), np.inf)
    for column, variant in enumerate(variants):
        able = np.array([may_run(variant, request) for request in offered], dtype=bool)
        if able.any():
            crowd = _Crowd.of([request for request, may in zip(offered, able, strict=True) if may], overhead_s)
            costs_s[able, column] = crowd.costs_s(variant, fastest)
    return Menus(
        tuple(request for request, kept in zip(offered, wanted, strict=True) if kept),
        opens_s[wanted],
        closes_s[wanted],
        np.array([utility(variant) for variant in variants], dtype=float),
        costs_s[wanted],
    )


def may_run(variant: Variant, request: Offered) -> bool:
    """True if the variant serves the request's task, and its domain or all domains."""
    return variant.task == request.task and variant.domain in (None, request.domain)


@dataclass(frozen=True)
class _Crowd:
    """The requests that may share runs of one variant: windows, indices into `lengths`, and inputs."""

    opens_s: Floats
    closes_s: Floats
    lengths: tuple[int, ...]
    length: npt.NDArray[np.intp]
    texts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, requests: Sequence[Offered], overhead_s: float) -> _Crowd:
        lengths, length = np.unique([request.tokens for request in requests], return_inverse=True)
        return cls(
            np.array([request.arrived_s for request in requests]),
            np.array([request.deadline_s - overhead_s for request in requests]),
            tuple(int(tokens) for tokens in lengths),
            length,
            np.array([request.texts for request in requests], dtype=np.int64),
        )

    def costs_s(self, variant: Variant, fastest: float) -> Floats:
        """The least core-seconds of each request: its share of the cheapest run that fits and could be filled."""
        least_s = self._least_s(variant)
        best_s = np.full(len(self.opens_s), np.inf)
        for batch, run_s in enumerate(least_s, 1):
            latest_s = self.closes_s - fastest * run_s[self.length] + _HAIR_S
            fits = latest_s >= self.opens_s
            if not fits.any():
                break  # a larger run takes at least as long
            if batch > 1:
                fits &= self._company(latest_s, fastest * run_s[0]) >= batch
            share_s = run_s[self.length] / batch
            best_s = np.where(fits & (share_s < best_s), share_s, best_s)
        return best_s * self.texts

    def _least_s(self, variant: Variant) -> Floats:
        """By batch and length, the least median of any run at least that large and long; medians need not be monotonic.

        Batches exceed the largest if a single request does: some policies run such a request at once.
        """
        batches = range(1, max(variant.max_batch, int(self.texts.max())) + 1)
        medians_s = np.array([[variant.median_s(batch, tokens) for tokens in self.lengths] for batch in batches])
        for axis in (0, 1):
            medians_s = np.flip(np.minimum.accumulate(np.flip(medians_s, axis), axis=axis), axis)
        return medians_s

    def _company(self, latest_s: Floats, run_s: float) -> Floats:
        """The most inputs that could share a run of at least `run_s` with each request: all have arrived, none is late.

        Counted at every arrival; between arrivals the number only falls.
        """
        may = self.closes_s - run_s + _HAIR_S >= self.opens_s
        opens_s, closing_s, texts = self.opens_s[may], self.closes_s[may] - run_s + _HAIR_S, self.texts[may]
        comes, goes = np.argsort(opens_s), np.argsort(closing_s)
        at_s = opens_s[comes]
        come = np.concatenate([[0], np.cumsum(texts[comes])])
        gone = np.concatenate([[0], np.cumsum(texts[goes])])
        present = come[np.searchsorted(at_s, at_s, "right")] - gone[np.searchsorted(closing_s[goes], at_s, "left")]
        first = np.minimum(np.searchsorted(at_s, self.opens_s, "left"), len(at_s) - 1)
        last = np.maximum(np.searchsorted(at_s, latest_s, "right") - 1, first)
        return -SparseTable.of(-present.astype(float)).least(first, last)


@dataclass(frozen=True)
class SparseTable:
    """A sparse table for range-minimum queries. Level k holds the minima of 2^k neighbours."""

    levels: tuple[Floats, ...]

    @classmethod
    def of(cls, values: Floats) -> SparseTable:
        """Builds the levels for an array."""
        levels = [values]
        while 2 ** len(levels) <= len(values):
            below, step = levels[-1], 2 ** (len(levels) - 1)
            levels.append(np.minimum(below[:-step], below[step:]))
        return cls(tuple(levels))

    def least(self, first: npt.NDArray[np.intp], last: npt.NDArray[np.intp]) -> Floats:
        """The minimum from each `first` to each `last`, both included."""
        found = np.empty(len(first))
        level_of = np.log2(np.maximum(last - first + 1, 1)).astype(int)
        for level, values in enumerate(self.levels):
            at = level_of == level
            found[at] = np.minimum(values[first[at]], values[last[at] + 1 - 2**level])
        return found
