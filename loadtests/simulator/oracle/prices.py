"""Shadow prices of the cores' time, and the upper bound that any prices prove.

Knows menus and cores. Knows no batches and no plan: the menus already contain the savings of shared runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog
from scipy.sparse import csc_array

from loadtests.simulator.oracle.menu import Menus, SparseTable

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

_BINS_OF_A_WINDOW = 4
"""Bins per median window, within the limits on the number of bins."""
_FEWEST_BINS, _MOST_BINS = 256, 2048
_FINEST = 4
"""Windows of fewer bins than twice this are exact in the program; longer ones are rounded outward."""
_ALIKE = 0.3
"""Requests whose costs differ by less than this ratio form one group of the program."""


@dataclass(frozen=True)
class Prices:
    """The price of a core-second in each bin, in utility; bin k begins at `begin_s` + k × `step_s`."""

    begin_s: float
    step_s: float
    each: Floats

    def bound(self, menus: Menus, cores: float) -> float:
        """An upper bound on any plan's utility: the value of all core time, plus each request's gain at its best price.

        Weak duality: a plan of utility V pays, for each request in time, at least cost × the lowest price in its
        window, and all payments together are at most the sum of cores × bin × price.
        """
        gains = self.gains(menus).max(axis=1, initial=0.0)
        return float(gains.sum() + cores * self.step_s * self.each.sum())

    def gains(self, menus: Menus) -> Floats:
        """Utility less price, (requests, variants); minus infinity if the variant cannot be in time."""
        offers = np.isfinite(menus.costs_s)
        paid = np.where(offers, menus.costs_s, 0.0) * self.cheapest(menus)[:, None]
        return np.where(offers, menus.utilities[None, :] - paid, -np.inf)

    def cheapest(self, menus: Menus) -> Floats:
        """The lowest price in each request's window."""
        return SparseTable.of(self.each).least(self.places(menus.opens_s), self.places(menus.closes_s))

    def places(self, at_s: Floats) -> Places:
        """The bins of these instants; a window that ends where a bin begins includes it, which only lowers prices."""
        found: Places = np.floor((at_s - self.begin_s) / self.step_s).astype(np.intp)
        return np.clip(found, 0, len(self.each) - 1)


def fair_prices(menus: Menus, cores: float) -> Prices:
    """The dual prices of a linear program over grouped requests: approximate, but any prices prove a bound.

    Needs at least one request, and for each a variant that could answer it in time.
    """
    begin_s = float(menus.opens_s.min())
    span_s = max(float(menus.closes_s.max()) - begin_s, 1e-6)
    wanted = span_s / max(float(np.median(menus.closes_s - menus.opens_s)), 1e-9) * _BINS_OF_A_WINDOW
    bins = int(min(max(wanted, _FEWEST_BINS), _MOST_BINS))
    free = Prices(begin_s, span_s / bins * (1 + 1e-9), np.zeros(bins))
    guess = Prices(begin_s, free.step_s, _Programme.of(menus, free).prices(cores * free.step_s))
    return min(guess, free, key=lambda prices: prices.bound(menus, cores))


@dataclass(frozen=True)
class _Programme:
    """The linear program over groups of similar requests: their counts, windows in bins and mean costs."""

    counts: Floats
    first: Places
    last: Places
    costs_s: Floats
    utilities: Floats
    bins: int

    @classmethod
    def of(cls, menus: Menus, empty: Prices) -> _Programme:
        first, last = empty.places(menus.opens_s), empty.places(menus.closes_s)
        coarse = 2 ** np.maximum(np.log2((last - first + 1) / _FINEST).astype(int), 0)
        first = first // coarse * coarse
        last = np.minimum((last // coarse + 1) * coarse, len(empty.each)) - 1
        offers = np.isfinite(menus.costs_s)
        priced = np.where(offers, menus.costs_s, 1.0)
        kinds = np.where(offers, np.round(np.log(priced) / _ALIKE), 10**6).astype(np.int64)
        keys = np.column_stack([first, last, kinds])
        groups, member, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        sums = np.zeros((len(groups), len(menus.utilities)))
        np.add.at(sums, member.ravel(), np.where(offers, menus.costs_s, np.inf))
        return cls(
            counts.astype(float),
            groups[:, 0].astype(np.intp),
            groups[:, 1].astype(np.intp),
            sums / counts[:, None],
            menus.utilities,
            len(empty.each),
        )

    def prices(self, cap_s: float) -> Floats:
        """The utility of one more core-second in each bin of `cap_s` core-seconds.

        Constraints: at most its count of each group; the work of a window goes to nodes of a binary tree over the bins;
        a node's work flows to its two children; a leaf takes at most its cap. The dual of the cap is the price.
        """
        windows, window = np.unique(np.column_stack([self.first, self.last]), axis=0, return_inverse=True)
        leaf = 2 ** int(np.ceil(np.log2(max(self.bins, 2))))
        group, variant = np.nonzero(np.isfinite(self.costs_s))
        source, node = _covers(windows[:, 0].astype(np.intp), windows[:, 1].astype(np.intp), leaf)
        child = np.arange(2, 2 * leaf)
        window_row = len(self.counts)
        node_row = window_row + len(windows)
        serve = np.arange(len(group))
        pour = len(serve) + np.arange(len(source))
        flow = len(serve) + len(pour) + np.arange(len(child))
        entries = (
            (group, serve, np.ones(len(group))),
            (window_row + window.ravel()[group], serve, self.costs_s[group, variant]),
            (window_row + source, pour, np.full(len(pour), -1.0)),
            (node_row + node, pour, np.ones(len(pour))),
            (node_row + child // 2, flow, np.full(len(flow), -1.0)),
            (node_row + child, flow, np.ones(len(flow))),
        )
        rows, columns, values = map(np.concatenate, zip(*entries, strict=True))
        most = np.zeros(node_row + 2 * leaf)
        most[:window_row] = self.counts
        most[node_row + leaf :] = cap_s
        gains = np.zeros(len(serve) + len(pour) + len(flow))
        gains[serve] = self.utilities[variant]
        matrix = csc_array((values, (rows, columns)), shape=(len(most), len(gains)))
        found = linprog(-gains, A_ub=matrix, b_ub=most, method="highs")
        if found.status != 0:
            return np.zeros(self.bins)
        first_leaf = node_row + leaf
        duals: Floats = -found.ineqlin.marginals[first_leaf : first_leaf + self.bins]
        return np.maximum(duals, 0.0)


def _covers(first: Places, last: Places, leaf: int) -> tuple[Places, Places]:
    """The nodes of a binary tree over the bins that cover each window: few even for a long window."""
    windows, nodes = [], []
    left, right, window = first + leaf, last + 1 + leaf, np.arange(len(first))
    while len(window):
        odd = left % 2 == 1
        windows.append(window[odd])
        nodes.append(left[odd])
        left = left + odd
        odd = right % 2 == 1
        right = right - odd
        windows.append(window[odd])
        nodes.append(right[odd])
        left, right = left // 2, right // 2
        on = left < right
        left, right, window = left[on], right[on], window[on]
    return np.concatenate(windows), np.concatenate(nodes)
