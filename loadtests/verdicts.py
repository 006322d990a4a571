"""What a race was for: the standing of every contestant, the two targets, and whether each is met and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.race import BASELINES, ENGINE, IDLE_CEILING, PINNED, ROUTED, RaceReport
from loadtests.turns import Measure, Spread, Turns, median_latency, throughput

LATENCY_CEILING = 1.5
THROUGHPUT_FLOOR = 0.8
BUSY_CEILING = 0.10


@dataclass(frozen=True)
class Target:
    """One promise about the gateway, as a ratio to the faster FastAPI; `ratio` is None where no round counts."""

    what: str
    baseline: str | None
    ratio: Spread | None
    bound: float
    at_most: bool

    @property
    def met(self) -> bool:
        """Whether the median ratio keeps the bound. A race without a round that counts keeps nothing."""
        if self.ratio is None:
            return False
        return self.ratio.median <= self.bound if self.at_most else self.ratio.median >= self.bound

    def sentence(self) -> str:
        """The verdict, with the margin in per cent of the bound."""
        wanted = f"{self.what}: {'at most' if self.at_most else 'at least'} {self.bound:g} × FastAPI's"
        if self.ratio is None:
            return f"{wanted}: not measured, no round counts"
        margin = abs(self.ratio.median / self.bound - 1)
        found = f"{self.ratio.median:.2f} × ({self.ratio.low:.2f} to {self.ratio.high:.2f}) {self.baseline}'s"
        return f"{wanted}: {'met' if self.met else 'missed'} by {margin:.0%}: {found}"


@dataclass(frozen=True)
class Standing:
    """One contestant: its measures at one connection and at many, and their ratios to the faster FastAPI."""

    contestant: str
    latency_s: Spread | None
    latency_ratio: Spread | None
    throughput: Spread | None
    throughput_ratio: Spread | None


def targets(report: RaceReport) -> tuple[Target, Target]:
    """The gateway's promises about latency at one connection and throughput at many."""
    turns, many = report.turns, report.settings.connections
    alone, crowd = faster(turns, 1, median_latency, True), faster(turns, many, throughput, False)
    return (
        Target("median latency at 1 connection", alone, _ratio(turns, alone, 1, median_latency), LATENCY_CEILING, True),
        Target(
            f"requests/s at {many} connections", crowd, _ratio(turns, crowd, many, throughput), THROUGHPUT_FLOOR, False
        ),
    )


def standings(report: RaceReport) -> list[Standing]:
    """Every contestant that ran, from the limit over the baselines to the gateway."""
    turns, many = report.turns, report.settings.connections
    alone, crowd = faster(turns, 1, median_latency, True), faster(turns, many, throughput, False)
    ran = {turn.slot.contestant for turn in turns.taken}
    return [
        Standing(
            name,
            turns.spread(name, 1, median_latency),
            turns.ratio(name, alone, 1, median_latency) if alone else None,
            turns.spread(name, many, throughput),
            turns.ratio(name, crowd, many, throughput) if crowd else None,
        )
        for name in (ENGINE, *BASELINES, PINNED, ROUTED)
        if name in ran
    ]


def faster(turns: Turns, connections: int, measure: Measure, less_is_better: bool) -> str | None:
    """The baseline with the better median over all rounds, chosen for each measure: the stricter comparison."""
    found = {name: spread for name in BASELINES if (spread := turns.spread(name, connections, measure))}
    best = min if less_is_better else max
    return best(found, key=lambda name: found[name].median) if found else None


def cautions(report: RaceReport) -> Sequence[str]:
    """What a reader of the figures must know: spoilt turns, servers that did not rest, a machine that was not quiet."""
    said = [
        f"{turn.slot.contestant} at {turn.slot.connections}: {turn.sample.errors} errors in "
        f"{turn.sample.requests} answers; round {turn.slot.round or '(warm-up)'} does not count at that load"
        for turn in report.turns.spoilt()
    ]
    said += [
        f"{name} used {share:.1%} of a core while idle, over {IDLE_CEILING:.0%}: the others ran with that much less"
        for name, share in report.idle.items()
        if share > IDLE_CEILING
    ]
    if report.others > BUSY_CEILING:
        said.append(f"the machine was not quiet: {report.others:.0%} of it was busy with something else")
    if report.routed_elsewhere:
        said.append(f"{report.routed_elsewhere:.0f} requests of {ROUTED} went to another checkpoint")
    return said


def beside(report: RaceReport) -> list[str]:
    """What each FastAPI server reached beside the idle gateway, as a share of what it reaches without one."""
    said = []
    for name in BASELINES:
        for connections, measure, what in (
            (1, median_latency, "median latency at 1 connection"),
            (report.settings.connections, throughput, f"requests/s at {report.settings.connections}"),
        ):
            with_it, without = (t.spread(name, connections, measure) for t in (report.turns, report.alone))
            if with_it and without and without.median:
                said.append(f"{name}: {with_it.median / without.median:.2f} × its {what} without the gateway")
    return said


def _ratio(turns: Turns, baseline: str | None, connections: int, measure: Measure) -> Spread | None:
    return turns.ratio(PINNED, baseline, connections, measure) if baseline else None
