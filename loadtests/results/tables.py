"""The tables of a comparison: each figure by policy and load, ours against the best baseline, and shares of a bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from gateway.model.tier import Tier
from loadtests.results.aggregate import Cell, Figure, Place, Spread, cells, differences, place_of, ratios
from loadtests.results.grid import Entry, Grid, Row
from loadtests.results.roles import Roles, best_baselines
from loadtests.results.run import RunResult
from loadtests.results.words import Scale, scale_of, signed

FIGURES: tuple[Figure, ...] = ("effective_quality", "attainment", "goodput_per_s")
NOTHING = Entry("-")
DAGGER = " †"


def overall_grid(runs: Sequence[RunResult], roles: Roles) -> Grid:
    """Each figure by policy, averaged over places within a seed and then over seeds: what a reader sees first.

    Over the places and seeds at which every policy has a valid run, so that none is spared what another bore.
    """
    of: dict[str, dict[tuple[int, Place], RunResult]] = {}
    for run in runs:
        by = of.setdefault(run.policy, {})
        if run.valid:
            by[run.seed, place_of(run)] = run
    shared = set.intersection(*(set(by) for by in of.values()))
    seeds = sorted({seed for seed, _ in shared})
    found = {
        (policy, figure): Spread.of(
            [fmean(getattr(by[at], figure) for at in sorted(shared) if at[0] == seed) for seed in seeds]
        )
        for policy, by in of.items()
        for figure in FIGURES
        if shared
    }
    competing = [name for name in of if shared and name not in roles.bounds]
    best = {figure: max((found[name, figure].mean for name in competing), default=None) for figure in FIGURES}
    scales = {figure: scale_of(runs, figure) for figure in FIGURES}
    order = sorted(of if shared else (), key=lambda name: (roles.rank(name), -found[name, FIGURES[0]].mean))

    def entry(policy: str, figure: Figure) -> Entry:
        spread = found[policy, figure]
        return Entry(scales[figure].spread(spread), policy not in roles.bounds and spread.mean == best[figure])

    rows = (
        Row(Entry(name, name == roles.ours), tuple(entry(name, figure) for figure in FIGURES), name == roles.ours)
        for name in order
    )
    places = len({place for _, place in shared})
    return Grid(
        f"Means over {places} {'place' if places == 1 else 'places'} (load and coefficient of variation)",
        ("policy", *(f"{scale.title}, {scale.unit}" for scale in scales.values())),
        tuple(rows),
        "Where every policy has a valid run; ± half the 95 % interval over seeds."
        + (" Clairvoyant policies know the future: they bound the others." if roles.bounds else ""),
    )


def figure_grids(runs: Sequence[RunResult], roles: Roles, figure: Figure = "effective_quality") -> tuple[Grid, ...]:
    """Policies by load, one grid for each coefficient of variation: bounds, ours, then baselines from the best down.

    The best of each load is bold; bounds do not compete.
    """
    found = cells(runs)
    scale = scale_of(runs, figure)
    return tuple(
        _figure_grid([cell for cell in found if cell.place.cv == cv], roles, figure, scale, cv) for cv in cvs(runs)
    )


def margin_grid(runs: Sequence[RunResult], roles: Roles) -> Grid:
    """Ours less the best baseline of each place, seed by seed; bold where the interval is clear of zero."""
    scale = scale_of(runs, "effective_quality")
    ours = {cell.place: cell for cell in cells(runs) if cell.policy == roles.ours}
    rows = []
    for place, rival in sorted(best_baselines(cells(runs), roles).items()):
        gap = differences(runs, roles.ours, rival.policy, "effective_quality").get(place)
        if gap is None:
            continue
        mine, theirs = ours[place].effective_quality, rival.effective_quality
        relative = f"{signed((mine.mean / theirs.mean - 1) * 100, 1)} %" if theirs.mean else "-"
        entries = (
            Entry(scale.spread(mine)),
            Entry(rival.policy),
            Entry(scale.spread(theirs)),
            Entry(scale.spread(gap, sign=True), bold=gap.sure),
            Entry(relative),
        )
        rows.append(Row(Entry(f"CV {place.cv:g}, load {place.load:g}"), entries))
    return Grid(
        f"{roles.ours} against the best baseline, effective quality, {scale.unit}",
        ("where", roles.ours, "best baseline", "its", "difference", "relative"),
        tuple(rows),
        "The difference is taken seed by seed, under the same requests, ± half its 95 % interval; bold: clear of zero. "
        "The best baseline is chosen with hindsight at each place.",
    )


def bound_grids(runs: Sequence[RunResult], roles: Roles) -> tuple[Grid, ...]:
    """What share of each bound's effective quality the policies reach, in percent, by load and coefficient."""
    return tuple(_bound_grid(runs, roles, bound, cv) for bound in roles.bounds for cv in cvs(runs))


def class_grid(runs: Sequence[RunResult], policy: str, place: Place) -> Grid:
    """What became of each class of requests under one policy at one place, over all its seeds."""
    found = next((cell for cell in cells(runs) if cell.policy == policy and cell.place == place), None)
    kinds: dict[int, list[RunResult]] = {}
    for run in found.runs if found else ():
        for one in run.by_class:
            kinds.setdefault(one.kind, []).append(run)
    tiers = [tier for tier in Tier if any(run.by_tier.get(tier) for run in (found.runs if found else ()))]
    return Grid(
        f"{policy} by class of request, CV {place.cv:g}, load {place.load:g}",
        ("class", "offered", "in time", "late", "refused", "failed", *tiers, "coverage", "nominal"),
        tuple(_class_row(of, kind, tiers) for kind, of in sorted(kinds.items())),
        "Shares of what the class offered; under a tier, its answers in time.",
    )


def invalid_grid(runs: Sequence[RunResult]) -> Grid | None:
    """The runs whose figures are not the policy's, and why; None where there are none."""
    rows = [
        Row(
            Entry(run.policy),
            (Entry(f"{run.load:g}"), Entry(f"{run.cv:g}"), Entry(str(run.seed)), Entry(run.note or "not said")),
        )
        for run in runs
        if not run.valid
    ]
    return Grid("Invalid runs", ("policy", "load", "CV", "seed", "why"), tuple(rows)) if rows else None


def cvs(runs: Sequence[RunResult]) -> tuple[float, ...]:
    """The coefficients of variation of the runs, ascending."""
    return tuple(sorted({run.cv for run in runs}))


def _figure_grid(found: Sequence[Cell], roles: Roles, figure: Figure, scale: Scale, cv: float) -> Grid:
    loads = sorted({cell.place.load for cell in found})
    by_policy: dict[str, dict[float, Cell]] = {}
    for cell in found:
        by_policy.setdefault(cell.policy, {})[cell.place.load] = cell
    competing = [cell for cell in found if cell.valid and cell.policy not in roles.bounds]
    best = {
        load: max((cell.spread(figure).mean for cell in competing if cell.place.load == load), default=None)
        for load in loads
    }

    def entry(cell: Cell | None) -> Entry:
        if cell is None:
            return NOTHING
        bold = cell.policy not in roles.bounds and cell.valid and cell.spread(figure).mean == best[cell.place.load]
        return Entry(scale.spread(cell.spread(figure)) + (DAGGER if cell.invalid else ""), bold)

    order = sorted(by_policy, key=lambda name: (roles.rank(name), -_mean(by_policy[name], figure)))
    rows = tuple(
        Row(
            Entry(name, name == roles.ours),
            tuple(entry(by_policy[name].get(load)) for load in loads),
            name == roles.ours,
        )
        for name in order
    )
    seeds = max(cell.spread(figure).n for cell in found)
    note = f"Means over {seeds} seeds ± half the 95 % interval." if seeds > 1 else "One seed: no interval."
    if any(cell.invalid for cell in found):
        note += " †: left out are runs that are not valid, unless there is none else."
    return Grid(
        f"{scale.title}, {scale.unit}; CV {cv:g}", ("policy", *(f"load {load:g}" for load in loads)), rows, note
    )


def _bound_grid(runs: Sequence[RunResult], roles: Roles, bound: str, cv: float) -> Grid:
    percent = Scale("share", "%", 100.0, 1)
    loads = sorted({run.load for run in runs if run.cv == cv})
    reached: dict[str, Mapping[Place, Spread]] = {
        name: ratios(runs, name, bound, "effective_quality") for name in (roles.ours, *roles.baselines)
    }
    best = {
        load: max((of[Place(cv, load)].mean for of in reached.values() if Place(cv, load) in of), default=None)
        for load in loads
    }
    rows = []
    for name, of in sorted(reached.items(), key=_by(roles, cv)):
        spreads = [of.get(Place(cv, load)) for load in loads]
        if not any(spreads):
            continue
        entries = tuple(
            NOTHING if spread is None else Entry(percent.spread(spread), spread.mean == best[load])
            for load, spread in zip(loads, spreads, strict=True)
        )
        rows.append(Row(Entry(name, name == roles.ours), entries, name == roles.ours))
    return Grid(
        f"Share of {bound}'s effective quality, %; CV {cv:g}",
        ("policy", *(f"load {load:g}" for load in loads)),
        tuple(rows),
        "Ratios taken seed by seed, ± half the 95 % interval of their mean.",
    )


def _by(roles: Roles, cv: float) -> Callable[[tuple[str, Mapping[Place, Spread]]], tuple[int, float]]:
    """Ours first, then from the best down."""

    def key(item: tuple[str, Mapping[Place, Spread]]) -> tuple[int, float]:
        name, of = item
        means = [spread.mean for place, spread in of.items() if place.cv == cv]
        return roles.rank(name), -fmean(means) if means else 0.0

    return key


def _mean(by_load: Mapping[float, Cell], figure: Figure) -> float:
    return fmean(cell.spread(figure).mean for cell in by_load.values())


def _class_row(runs: Sequence[RunResult], kind: int, tiers: Sequence[Tier]) -> Row:
    of = [one for run in runs for one in run.by_class if one.kind == kind]
    offered = sum(one.offered for one in of)
    counts = [sum(getattr(one, name) for one in of) for name in ("served", "late", "refused", "failed")]
    counts += [sum(one.by_tier.get(tier, 0) for one in of) for tier in tiers]
    covered = [one.coverage for one in of if one.coverage is not None]
    shares = tuple(Entry(f"{count / offered * 100:.1f} %") for count in counts)
    coverage = Entry(f"{fmean(covered) * 100:.1f} %") if covered else NOTHING
    return Row(Entry(of[0].about), (Entry(str(offered)), *shares, coverage, Entry(f"{of[0].nominal * 100:g} %")))
