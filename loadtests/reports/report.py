"""The report of a scenario's runs: one HTML page with the verdict, plots and all figures.

Needs Matplotlib, so commands import it only for a report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from loadtests.reports.comparison import (
    OURS,
    Place,
    Roles,
    Spread,
    best_baselines,
    cells,
    differences,
    scale_of,
    signed,
)
from loadtests.reports.drawing import Plot
from loadtests.reports.page import figures, folded, page, paragraph, section
from loadtests.reports.plots import budget_plot, coverage_plot, load_plot, tier_plot, window_plot
from loadtests.reports.runs import Recorded, RunResult, described
from loadtests.reports.tables import (
    FIGURES,
    bound_grids,
    class_grid,
    figure_grids,
    invalid_grid,
    margin_grid,
    overall_grid,
)
from loadtests.workload.scenario import ArrivalModel, Scenario


def in_words(scenario: Scenario, runs: Sequence[RunResult]) -> tuple[str, ...]:
    """Sentences on the runs, the arrivals, the requests and the node."""
    return tuple(_sentences(scenario, runs))


def _sentences(scenario: Scenario, runs: Sequence[RunResult]) -> Iterator[str]:
    policies = len({run.policy for run in runs})
    seeds = len({run.seed for run in runs})
    modes = " and ".join(sorted({run.mode for run in runs}, reverse=True))
    offered = sum(run.offered for run in runs)
    yield (
        f"{_many(len(runs), 'run')} ({modes}): {_many(policies, 'policy', 'policies')}, {_many(seeds, 'seed')}, "
        f"{scenario.seconds:g} s each after {scenario.warmup_s:g} s of warm-up; {offered:,} requests counted."
    )
    yield _arrivals(scenario.arrivals, runs)
    total = sum(one.share for one in scenario.requests)
    kinds = "; ".join(f"{100 * one.share / total:.0f} % {described(one)}" for one in scenario.requests)
    yield f"Requests: {kinds}."
    node, source = scenario.node, scenario.catalog
    served = f"the catalog {source.manifests}" if source.manifests else f"measured samples ({source.profile})"
    ingress = _many(scenario.ingress.count, "gateway process", "gateway processes")
    yield (
        f"Served by {served} on {_many(node.cores, 'core')}, {ingress}; each "
        f"request costs {node.overhead_ms:g} ms outside queue and engine."
    )


def _arrivals(arrivals: ArrivalModel, runs: Sequence[RunResult]) -> str:
    rates = sorted({run.rate_per_s for run in runs})
    span = f"{rates[0]:.3g}" if rates[0] == rates[-1] else f"{rates[0]:.3g} to {rates[-1]:.3g}"
    unit = "" if arrivals.rate_per_s else "; load 1 is the capacity of the quality tier"
    how = {
        "poisson": "as a Poisson process",
        "gamma": "with gamma-distributed interarrival times of the given coefficient of variation (CV)",
        "step": "at a rate that jumps",
        "ramp": "at a rate that ramps",
        "trace": f"at the rates of {arrivals.trace}",
    }[arrivals.process]
    return f"Arrivals {how}, open loop, {span} a second{unit}."


def _many(count: int, one: str, several: str | None = None) -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"


SCATTERS = 4


def write_report(
    scenario: Scenario,
    runs: Sequence[RunResult],
    path: Path,
    recorded: Sequence[Recorded] = (),
    ours: str = OURS,
) -> None:
    """Writes the page; equal runs give equal bytes. Raises ValueError for no runs, or runs of another scenario."""
    path.write_text(drawn(scenario, runs, recorded, ours), encoding="utf-8")


def drawn(scenario: Scenario, runs: Sequence[RunResult], recorded: Sequence[Recorded] = (), ours: str = OURS) -> str:
    """The page as HTML. Raises as `write_report`."""
    if not runs or {run.scenario for run in runs} != {scenario.name}:
        raise ValueError(f"a report needs runs of one scenario, here {scenario.name}")
    roles = Roles.of(runs, ours)
    modes = " and ".join(sorted({run.mode for run in runs}, reverse=True))
    return page(scenario.name, f"Punctual load test, {modes}", _parts(scenario, runs, recorded, roles))


def _parts(scenario: Scenario, runs: Sequence[RunResult], recorded: Sequence[Recorded], roles: Roles) -> Iterator[str]:
    if scenario.about:
        yield paragraph(scenario.about, "lead")
    if words := verdict(runs, roles):
        yield paragraph(words, "verdict")
    invalid = invalid_grid(runs)
    if invalid:
        yield paragraph(
            f"Not valid, and left out of means if valid ones remain: {len(invalid.rows)} of {len(runs)} runs.",
            "warning",
        )
        yield invalid.html()
    yield section("The scenario", *(paragraph(sentence) for sentence in in_words(scenario, runs)))
    overall = overall_grid(runs, roles)
    if overall.rows:
        yield section("In short", overall.html())
    yield figures((*(load_plot(runs, roles, name) for name in FIGURES), *_requests(runs, recorded, roles)))
    yield from _tables(runs, roles)


def _requests(runs: Sequence[RunResult], recorded: Sequence[Recorded], roles: Roles) -> Iterator[Plot]:
    """The plots of outcomes by tier, of single requests, and of coverage."""
    of_interest = policies_of_interest(runs, roles)
    yield tier_plot(runs, of_interest)
    chosen = _scattered(recorded, of_interest)
    place = busiest(runs)
    plots = (budget_plot(chosen), coverage_plot(runs, roles), window_plot(runs, roles.ours, place.load))
    for plot in plots:
        if plot is not None:
            yield plot


def _tables(runs: Sequence[RunResult], roles: Roles) -> Iterator[str]:
    quality, *others = ([grid.html() for grid in figure_grids(runs, roles, name)] for name in FIGURES)
    margins = margin_grid(runs, roles)
    parts = [*quality, margins.html() if margins.rows else ""]
    for grids, name in zip(others, FIGURES[1:], strict=True):
        parts.append(folded(scale_of(runs, name).title, *grids))
    if roles.bounds:
        parts.append(folded("Share of the oracle's bound", *(grid.html() for grid in bound_grids(runs, roles))))
    by_class = class_grid(runs, roles.ours, busiest(runs))
    if by_class.rows:
        parts.append(folded("By class of request", by_class.html()))
    yield section("Tables", *parts)


def verdict(runs: Sequence[RunResult], roles: Roles) -> str:
    """Ours against the best baseline in a sentence or two; empty without such a pair."""
    gaps = _gaps(runs, roles)
    if not gaps:
        return ""
    scale = scale_of(runs, "effective_quality")
    ahead = sum(gap.sure and gap.mean > 0 for gap in gaps.values())
    behind = sum(gap.sure and gap.mean < 0 for gap in gaps.values())
    mean = fmean(gap.mean for gap in gaps.values()) * scale.times
    worst, best = (end(gaps, key=lambda place: gaps[place].mean) for end in (min, max))
    if len(gaps) == 1:
        alone = scale.spread(gaps[best], sign=True)
        return f"In effective quality {roles.ours} differs from the best baseline by {alone} {scale.unit}."
    return (
        f"In effective quality {roles.ours} is ahead of the best baseline at {ahead} of {len(gaps)} places (a load and "
        f"a CV) and behind at {behind}, by a 95 % confidence interval. On average the difference is "
        f"{signed(mean, scale.digits)} {scale.unit}: from {scale.spread(gaps[worst], sign=True)} ({_where(worst)}) "
        f"to {scale.spread(gaps[best], sign=True)} ({_where(best)})."
    )


def policies_of_interest(runs: Sequence[RunResult], roles: Roles) -> tuple[str, ...]:
    """Ours, the best baseline over all places, and the first bound, if they ran."""
    found = cells(runs)
    means = {
        name: fmean(cell.effective_quality.mean for cell in found if cell.policy == name) for name in roles.baselines
    }
    best = max(means, key=means.__getitem__, default=None)
    ran = {run.policy for run in runs}
    return tuple(name for name in (roles.ours, best, *roles.bounds[:1]) if name in ran and name is not None)


def busiest(runs: Sequence[RunResult]) -> Place:
    """The place for detailed plots: the load nearest to the quality tier's capacity, the median coefficient there."""
    load = min({run.load for run in runs}, key=lambda one: (abs(one - 1), one))
    at = sorted({run.cv for run in runs if run.load == load})
    return Place(at[len(at) // 2], load)


def _gaps(runs: Sequence[RunResult], roles: Roles) -> Mapping[Place, Spread]:
    gaps: dict[Place, Spread] = {}
    for place, rival in best_baselines(cells(runs), roles).items():
        gap = differences(runs, roles.ours, rival.policy, "effective_quality").get(place)
        if gap is not None:
            gaps[place] = gap
    return gaps


def _where(place: Place) -> str:
    return f"CV {place.cv:g}, load {place.load:g}"


def _scattered(recorded: Sequence[Recorded], policies: Sequence[str]) -> list[Recorded]:
    """One recorded run of each policy of interest, at the busiest place if possible."""
    if not recorded:
        return []
    place = busiest([one.result for one in recorded])
    chosen = []
    for policy in policies:
        of = [one for one in recorded if one.result.policy == policy]
        of.sort(key=lambda one: (abs(one.result.load - place.load), abs(one.result.cv - place.cv), one.result.seed))
        chosen += of[:1]
    return chosen[:SCATTERS]
