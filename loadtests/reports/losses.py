"""What each part of a policy earns: the quality that is lost where it is switched off, with intervals and a verdict.

Quality is in percent of the task's best, so that scenarios compare. Runs are paired: both met the same requests. Each
place of a scenario has seeds of its own, so that places, and scenarios, are independent, and their variances add up.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from loadtests.reports.comparison import LEAST, Place, place_of, signed, student_t
from loadtests.reports.runs import RunResult
from loadtests.reports.tables import NOTHING, Entry, Grid, Row

ENOUGH = 0.5
"""The least loss, in points of the task's best quality, that keeps a part of the policy."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with the variance of that mean and its degrees of freedom; none if a place has fewer than three seeds."""

    value: float
    variance: float
    freedom: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """The mean of independent values."""
        if len(values) < LEAST:
            return cls(fmean(values), 0.0, 0.0)
        return cls(fmean(values), variance(values) / len(values), len(values) - 1)

    @classmethod
    def over(cls, means: Sequence[Mean]) -> Mean:
        """The mean of independent means, each of one weight.

        The degrees of freedom add up, as they do for equal variances; where one mean varies far more than the others,
        the interval is somewhat too narrow.
        """
        value, freedom = fmean(one.value for one in means), sum(one.freedom for one in means)
        if any(one.freedom == 0 for one in means):
            return cls(value, 0.0, 0.0)
        return cls(value, sum(one.variance for one in means) / len(means) ** 2, freedom)

    def margin(self, looks: int = 1) -> float | None:
        """Half the 95 % interval, wide enough for `looks` intervals to hold together; None if there is none."""
        if self.freedom == 0:
            return None
        return student_t(self.freedom, 1 - 0.025 / looks) * math.sqrt(self.variance)

    @property
    def text(self) -> str:
        """The mean with its sign, ± half the interval."""
        margin = self.margin()
        return signed(self.value, 2) if margin is None else f"{signed(self.value, 2)} ± {margin:.2f}"


@dataclass(frozen=True, slots=True)
class Loss:
    """What is lost without one part, by scenario and over all; `changed` of `runs` runs had another result.

    `kept` is the reason why the part stays even if it earns nothing; empty if there is none.
    """

    name: str
    about: str
    kept: str
    by_scenario: Mapping[str, Mean]
    changed: int
    runs: int

    @property
    def overall(self) -> Mean:
        """The mean over scenarios, each of one weight."""
        return Mean.over(list(self.by_scenario.values()))

    def beyond_chance(self, sign: int = 1) -> dict[str, Mean]:
        """The scenarios with a loss of `ENOUGH` or more beyond chance, the largest first; with sign -1, such a gain.

        The interval of each is widened for the number of scenarios that are looked at.
        """
        looks = len(self.by_scenario)
        found = {
            name: mean
            for name, mean in self.by_scenario.items()
            if (margin := mean.margin(looks)) is not None
            and sign * mean.value >= ENOUGH
            and sign * mean.value - margin > 0
        }
        return dict(sorted(found.items(), key=lambda pair: -sign * pair[1].value))

    @property
    def earns(self) -> bool:
        """True if the part earns enough in some scenario."""
        return bool(self.beyond_chance())

    @property
    def unsure(self) -> dict[str, Mean]:
        """The scenarios with such a loss that may be chance, the largest first."""
        sure = self.beyond_chance()
        found = {name: mean for name, mean in self.by_scenario.items() if mean.value >= ENOUGH and name not in sure}
        return dict(sorted(found.items(), key=lambda pair: -pair[1].value))

    @property
    def judged(self) -> bool:
        """True if there are seeds enough for intervals."""
        return all(mean.freedom for mean in self.by_scenario.values())

    @property
    def verdict(self) -> str:
        """The judgement in a few words."""
        said = []
        if earned := self.beyond_chance():
            said.append(f"earns {_most(earned)}")
        elif not self.changed:
            said.append("never acts")
        elif not self.judged:
            said.append("too few seeds")
        elif self.unsure:
            said.append(f"nothing beyond chance; perhaps {_most(self.unsure)}")
        else:
            said.append(f"less than {ENOUGH:g} anywhere")
        if cost := self.beyond_chance(-1):
            said.append(f"costs {_most({name: Mean(-mean.value, 0, 0) for name, mean in cost.items()})}")
        if self.kept and not earned:
            said.append(f"kept: {self.kept}")
        return "; ".join(said)


def _most(found: Mapping[str, Mean]) -> str:
    """The largest of the figures with its scenario, and how many there are."""
    name, mean = next(iter(found.items()))
    others = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{mean.value:.1f} in {_short(name)}{others}"


def _short(scenario: str) -> str:
    """The name without that of its set."""
    return scenario.rpartition("/")[2]


def loss_of(
    name: str,
    about: str,
    kept: str,
    whole: Sequence[RunResult],
    without: Sequence[RunResult],
    best: Mapping[str, float],
) -> Loss:
    """The loss by the runs of the whole policy and those without the part; `best` is the best quality by scenario.

    Raises ValueError for no common run.
    """
    full = {_at(run): run for run in whole}
    gaps: dict[str, dict[Place, list[float]]] = defaultdict(lambda: defaultdict(list))
    changed = runs = 0
    for run in without:
        if (other := full.get(_at(run))) is None:
            continue
        gap = (other.effective_quality - run.effective_quality) / best[run.scenario] * 100
        gaps[run.scenario][place_of(run)].append(gap)
        changed += _outcome(run) != _outcome(other)
        runs += 1
    if not runs:
        raise ValueError(f"{name}: no run in common with the whole policy's")
    means = {name: Mean.over([Mean.of(of) for of in places.values()]) for name, places in gaps.items()}
    return Loss(name, about, kept, means, changed, runs)


def _at(run: RunResult) -> tuple[str, Place, int]:
    return run.scenario, place_of(run), run.seed


def _outcome(run: RunResult) -> tuple[object, ...]:
    """What a run came to: two runs with equal outcomes were decided alike, as far as anyone can see."""
    return run.served, run.late, run.refused, run.failed, run.by_variant, run.latency


def ranked(losses: Sequence[Loss]) -> list[Loss]:
    """What earns most over all scenarios first."""
    return sorted(losses, key=lambda loss: -loss.overall.value)


def loss_grid(losses: Sequence[Loss], *, about: bool = True) -> Grid:
    """One row a part: its loss over all scenarios, the largest, and the verdict.

    With `about` a column says how the policy goes on without it; without, the table fits a terminal.
    """
    rows = []
    for loss in ranked(losses):
        where, most = max(loss.by_scenario.items(), key=lambda pair: pair[1].value)
        largest = Entry(f"{most.text}, {_short(where)}") if loss.changed else NOTHING
        entries = (
            *((Entry(loss.about),) if about else ()),
            Entry(loss.overall.text, bold=_sure(loss.overall)),
            largest,
            Entry(f"{loss.changed} of {loss.runs}"),
            Entry(loss.verdict, bold=not loss.earns and not loss.kept),
        )
        rows.append(Row(Entry(loss.name), entries))
    return Grid(
        "What is lost without each part of the policy, points of the task's best quality",
        ("part", *(("without it",) if about else ()), "loss over all", "largest loss", "runs changed", "verdict"),
        tuple(rows),
        "Mean differences of paired runs ± half the 95 % interval; bold: the interval excludes zero. The verdict asks "
        f"for a loss of {ENOUGH:g} or more in one scenario, by intervals that are widened for the number of scenarios.",
    )


def scenario_grid(losses: Sequence[Loss]) -> Grid:
    """The loss of each part in each scenario; bold if its widened interval excludes zero."""
    scenarios = list(dict.fromkeys(name for loss in losses for name in loss.by_scenario))
    rows = []
    for loss in ranked(losses):
        means = [loss.by_scenario.get(name) for name in scenarios]
        entries = (
            Entry(mean.text, bold=_sure(mean, len(scenarios))) if mean and loss.changed else NOTHING for mean in means
        )
        rows.append(Row(Entry(loss.name), tuple(entries)))
    return Grid(
        "The losses by scenario",
        ("part", *(_short(name) for name in scenarios)),
        tuple(rows),
        "± half the 95 % interval; bold: beyond chance even though as many scenarios are looked at.",
    )


def _sure(mean: Mean, looks: int = 1) -> bool:
    margin = mean.margin(looks)
    return margin is not None and abs(mean.value) > margin


def loss_sentences(losses: Sequence[Loss]) -> tuple[str, ...]:
    """What earns nothing by its name, what is kept all the same, and what costs."""
    return tuple(_said(ranked(losses)))


def _said(losses: Sequence[Loss]) -> Iterator[str]:
    if not all(loss.judged for loss in losses):
        yield f"Fewer than {LEAST} seeds give no interval, so nothing was judged."
        return
    idle = [loss for loss in losses if not loss.earns]
    if out := [loss.name for loss in idle if not loss.kept]:
        yield f"Earn less than {ENOUGH:g} points anywhere beyond chance: {', '.join(out)}."
    if unsure := [loss.name for loss in idle if not loss.kept and loss.unsure]:
        yield f"Of these, longer runs (--only PART --longer 4) may show more of: {', '.join(unsure)}."
    if kept := [f"{loss.name} ({loss.kept})" for loss in idle if loss.kept]:
        yield f"Earn as little, but are kept for another reason: {'; '.join(kept)}."
    if costly := [loss.name for loss in losses if loss.beyond_chance(-1)]:
        yield f"{ENOUGH:g} points or more are gained somewhere without: {', '.join(costly)}."
    if not idle:
        yield f"Everything earns {ENOUGH:g} points or more somewhere."
