"""The verdict on our policy: where a baseline is above it, and its share of the oracle's bound.

Knows figures; how they are shown is not its business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from loadtests.reports.comparison import LEAST, Place, Roles, Spread, differences, ratios, scale_of
from loadtests.reports.runs import RunResult
from loadtests.simulator.simulation import BOUND

SHARE_OF_BOUND = 0.95
"""What our policy must have of the oracle's bound on effective quality, on average over places."""


@dataclass(frozen=True, slots=True)
class Beaten:
    """A baseline has more effective quality than ours at a place, by the whole interval of the difference."""

    place: Place
    baseline: str
    difference: Spread


@dataclass(frozen=True, slots=True)
class Verdict:
    """How our policy stands; `share` is None where it or the bound did not run.

    `judged` is how many pairs of a place and a baseline have seeds enough for an interval, of `pairs` in all.
    """

    beaten: tuple[Beaten, ...]
    pairs: int
    judged: int
    share: float | None

    @property
    def misses_bound(self) -> bool:
        """Whether it has less of the bound than it must."""
        return self.share is not None and self.share < SHARE_OF_BOUND

    @property
    def good(self) -> bool:
        """Whether nothing speaks against ours."""
        return not self.beaten and not self.misses_bound


def verdict_of(runs: Sequence[RunResult], roles: Roles) -> Verdict:
    """Compares seed by seed, under the same requests; a baseline is above where the whole 95 % interval is below 0."""
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
    """The verdict in words, what speaks against ours first; nothing where ours did not run beside another."""
    scale, ours = scale_of(runs, "effective_quality"), roles.ours
    said = [
        f"CV {one.place.cv:g}, load {one.place.load:g}: {ours} is below {one.baseline}, "
        f"{scale.spread(one.difference, sign=True)} {scale.unit}"
        for one in verdict.beaten
    ]
    if verdict.judged and not verdict.beaten:
        said.append(f"No baseline is above {ours} at any place by more than chance explains.")
    if verdict.judged < verdict.pairs:
        said.append(f"Fewer than {LEAST} seeds give no interval, so that {ours} was not held against every baseline.")
    if verdict.share is not None:
        least = f", less than the {SHARE_OF_BOUND * 100:g} % that it must have" if verdict.misses_bound else ""
        said.append(f"{ours} has {verdict.share * 100:.1f} % of the oracle's bound on average over places{least}.")
    return tuple(said)
