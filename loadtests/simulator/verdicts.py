"""The verdict on our policy: where a baseline is above it, and its share of the oracle's bound.

Knows figures; knows no output format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from loadtests.reports.comparison import LEAST, Place, Roles, Spread, differences, ratios, scale_of
from loadtests.reports.runs import RunResult
from loadtests.simulator.simulation import BOUND

SHARE_OF_BOUND = 0.95
"""The least share of the oracle's bound on effective quality for our policy, on average over places."""


@dataclass(frozen=True, slots=True)
class Beaten:
    """A place at which a baseline has significantly more effective quality than our policy."""

    place: Place
    baseline: str
    difference: Spread


@dataclass(frozen=True, slots=True)
class Verdict:
    """The comparison's result; `share` is None if our policy or the bound did not run.

    `judged` of `pairs` (place, baseline) pairs have enough seeds for an interval.
    """

    beaten: tuple[Beaten, ...]
    pairs: int
    judged: int
    share: float | None

    @property
    def misses_bound(self) -> bool:
        """True if our share of the bound is too small."""
        return self.share is not None and self.share < SHARE_OF_BOUND

    @property
    def good(self) -> bool:
        """True if no baseline is above ours and the share of the bound is large enough."""
        return not self.beaten and not self.misses_bound


def verdict_of(runs: Sequence[RunResult], roles: Roles) -> Verdict:
    """Compares paired by seed; a baseline is above if the whole 95 % interval of the difference is below 0."""
    gaps = [
        Beaten(place, baseline, gap)
        for baseline in roles.baselines
        for place, gap in differences(runs, roles.ours, baseline, "effective_quality").items()
    ]
    judged = [one for one in gaps if one.difference.margin is not None]
    beaten = sorted((one for one in judged if one.difference.most < 0), key=lambda one: (one.place, one.baseline))
    shares = ratios(runs, roles.ours, BOUND, "effective_quality") if BOUND in roles.bounds else {}
    share = fmean(one.mean for one in shares.values()) if shares else None
    return Verdict(tuple(beaten), len(gaps), len(judged), share)


def sentences(verdict: Verdict, runs: Sequence[RunResult], roles: Roles) -> tuple[str, ...]:
    """The verdict in sentences, failures first; empty if ours ran alone or not at all."""
    scale, ours = scale_of(runs, "effective_quality"), roles.ours
    said = [
        f"CV {one.place.cv:g}, load {one.place.load:g}: {ours} is below {one.baseline}, "
        f"{scale.spread(one.difference, sign=True)} {scale.unit}"
        for one in verdict.beaten
    ]
    if verdict.judged and not verdict.beaten:
        said.append(f"No baseline is significantly above {ours} at any place.")
    if verdict.judged < verdict.pairs:
        said.append(f"Fewer than {LEAST} seeds give no interval, so {ours} was not compared with every baseline.")
    if verdict.share is not None:
        least = f", less than the {SHARE_OF_BOUND * 100:g} % that it must have" if verdict.misses_bound else ""
        said.append(f"{ours} has {verdict.share * 100:.1f} % of the oracle's bound on average over places{least}.")
    return tuple(said)
