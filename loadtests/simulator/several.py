"""The command `punctual simulate made-up`: plays all made-up scenarios under our policy and every baseline.

Exit status: 0, or 1 if a baseline is significantly above our policy in some scenario. Raises LoadTestError.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from time import perf_counter, process_time
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from loadtests.options import positive
from loadtests.reports.comparison import Place as Where
from loadtests.reports.comparison import Spread, place_of, signed
from loadtests.reports.runs import RunResult, write_json
from loadtests.reports.tables import NOTHING, Entry, Grid, Row
from loadtests.simulator.command import PolicyOption
from loadtests.simulator.runs import Order, orders_of, side_by_side, usable_cores
from loadtests.simulator.simulation import BOUND, FEASIBLE, OURS, STATIC, Simulation, UnknownPolicy
from loadtests.workload.options import JobsOption, JsonOption, MarkdownOption, ScenarioCommand, SeedsOption
from loadtests.workload.scenario import MADE_UP, overridden, read_scenario
from loadtests.workload.variants import variants_of

BEST_STATIC = "the best static"
"""The best choice of one variant for all requests of a task, in hindsight, in each scenario."""

WIDE = 160
"""The columns of a terminal from which on a table has one for each scenario."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@dataclass(frozen=True, slots=True)
class Play:
    """One run to play."""

    simulation: Simulation
    order: Order


@dataclass(frozen=True, slots=True)
class Played:
    """The results of one run, its number of requests with those of the warm-up, and its CPU time."""

    results: tuple[RunResult, ...]
    requests: int
    core_s: float


@app.command(cls=ScenarioCommand)
def made_up(
    policy: PolicyOption = None,
    longer: Annotated[
        float | None, typer.Option(parser=positive, metavar="TIMES", help="play each run so many times as long")
    ] = None,
    seeds: SeedsOption = None,
    jobs: JobsOption = None,
    json: JsonOption = None,
    markdown: MarkdownOption = None,
) -> None:
    """Simulates all scenarios of made-up catalogs under the gateway's policy and under published ones."""
    began_s, console = perf_counter(), Console(highlight=False)
    simulations = [simulation_of(name, longer or 1.0, seeds) for name in MADE_UP]
    plays = plays_of(simulations, policy)
    processes = jobs or usable_cores()
    dearest = sorted(plays, key=lambda play: play.order.policy not in (BOUND, OURS))
    played = list(track(side_by_side(play_one, dearest, processes), "runs", len(plays), console=console))
    runs = sorted((run for one in played for run in one.results), key=_order)
    best = {one.scenario.name: _best(one) for one in simulations}
    grids, said = (quality_grid(runs, best), margin_grid(runs, best)), sentences(runs, best)
    for grid in (quality_grid(runs, best, each=console.width >= WIDE), grids[1]):
        console.print(grid.rich())
    for sentence in said:
        console.print(sentence, markup=False)
    if json:
        write_json(runs, json)
    if markdown:
        parts = (f"```\n{_command_line(policy, longer, seeds)}\n```\n", "".join(f"- {one}\n" for one in said))
        markdown.write_text("\n".join((*parts, *(grid.markdown() for grid in grids))), encoding="utf-8")
    requests, core_s = sum(one.requests for one in played), sum(one.core_s for one in played)
    console.print(
        f"{requests:,} requests in {len(played):,} runs, {core_s / 60:.1f} min of a core; "
        f"{perf_counter() - began_s:,.0f} s in all with --jobs {processes}"
    )
    raise typer.Exit(1 if behind(runs, best) else 0)


def simulation_of(name: str, longer: float, seeds: Sequence[int] | None) -> Simulation:
    """The simulation of a scenario whose variants are in a CSV, its runs so many times as long."""
    scenario = read_scenario(name)
    scenario = overridden(scenario, {"seconds": scenario.seconds * longer, "seeds": seeds})
    return Simulation(scenario, variants_of(scenario))


def plays_of(simulations: Sequence[Simulation], named: Sequence[str] | None) -> list[Play]:
    """Every run of the named policies, or of all: a policy is played in each scenario that has it.

    Raises UnknownPolicy for one that no scenario has.
    """
    known = dict.fromkeys(policy for one in simulations for policy in one.policies)
    for policy in named or ():
        if policy not in known:
            raise UnknownPolicy(policy, *known)
    return [
        Play(one, order)
        for one in simulations
        for order in orders_of(one.scenario, [policy for policy in one.policies if not named or policy in named])
    ]


def play_one(play: Play) -> Played:
    """Plays one run, in whatever process this is."""
    began_s = process_time()
    offered = play.simulation.offered(play.order.place)
    recorded = play.simulation.played(play.order.policy, play.order.place, offered)
    return Played(tuple(one.result for one in recorded), len(offered), process_time() - began_s)


def quality_grid(runs: Sequence[RunResult], best: Mapping[str, float], *, each: bool = True) -> Grid:
    """Effective quality by policy in percent of the task's best: ours, baselines, then the oracle's bound.

    With `each`, by scenario as well. The best policy of each is bold; the bound does not compete.
    """
    found = {name: _qualities(runs, name, quality) for name, quality in best.items()}
    policies = dict.fromkeys(policy for of in found.values() for policy in of)
    means = {policy: fmean(_mean(of[policy]) for of in found.values() if policy in of) for policy in policies}
    tops = {name: max((_mean(of[one]) for one in of if one != BOUND), default=0.0) for name, of in found.items()}
    rows = []
    for policy in sorted(policies, key=lambda one: ((one == BOUND) - (one == OURS), -means[one])):
        entries = [Entry(f"{means[policy]:.2f}")]
        for name, of in found.items() if each else ():
            if policy not in of:
                entries.append(NOTHING)
                continue
            mean = _mean(of[policy])
            entries.append(Entry(_text(_spread(of[policy])), bold=policy != BOUND and mean == tops[name]))
        rows.append(Row(Entry(policy, policy == OURS), tuple(entries), policy == OURS))
    return Grid(
        "Effective quality, % of the task's best, by scenario",
        ("policy", "mean", *(_short(name) for name in best if each)),
        tuple(rows),
        "Means over a scenario's places (loads and coefficients of variation) ± half the 95 % interval over seeds. "
        f"{BEST_STATIC}: the one variant, or pair of variants, that is best in hindsight in the scenario.",
    )


def margin_grid(runs: Sequence[RunResult], best: Mapping[str, float]) -> Grid:
    """Ours minus the best baseline in each scenario, paired by seed, and our share of the oracle's bound."""
    rows = []
    for name, quality in best.items():
        of = _qualities(runs, name, quality)
        rivals = {policy: values for policy, values in of.items() if policy not in (OURS, BOUND)}
        if OURS not in of or not rivals:
            continue
        rival = max(rivals, key=lambda one: _mean(rivals[one]))
        gap = _gap(of[OURS], rivals[rival])
        share = f"{_mean(of[OURS]) / _mean(of[BOUND]) * 100:.1f} %" if BOUND in of else "-"
        entries = (
            Entry(_text(_spread(of[OURS]))),
            Entry(rival),
            Entry(_text(_spread(rivals[rival]))),
            Entry(_text(gap, sign=True), bold=gap.sure),
            Entry(share),
        )
        rows.append(Row(Entry(_short(name)), entries))
    return Grid(
        f"{OURS} against the best baseline of each scenario, % of the task's best",
        ("scenario", OURS, "best baseline", "its", "difference", "share of the bound"),
        tuple(rows),
        "The mean difference over places, paired by seed, ± half its 95 % interval; bold: the interval excludes zero.",
    )


def behind(runs: Sequence[RunResult], best: Mapping[str, float]) -> dict[tuple[str, str], Spread]:
    """The baselines significantly above ours, by scenario and policy, with the difference."""
    found = {}
    for name, quality in best.items():
        of = _qualities(runs, name, quality)
        for policy, values in of.items():
            if OURS in of and policy not in (OURS, BOUND) and (gap := _gap(of[OURS], values)).sure and gap.mean < 0:
                found[name, policy] = gap
    return found


def sentences(runs: Sequence[RunResult], best: Mapping[str, float]) -> tuple[str, ...]:
    """Where a baseline is above ours."""
    below = behind(runs, best)
    said = [
        f"{_short(name)}: {OURS} is below {policy}, {_text(gap, sign=True)}" for (name, policy), gap in below.items()
    ]
    return tuple(said) or (f"No baseline is significantly above {OURS} in any scenario.",)


def _qualities(runs: Sequence[RunResult], scenario: str, best: float) -> dict[str, dict[int, float]]:
    """Each policy's effective quality by seed, averaged over places, in percent of the task's best."""
    by: dict[str, dict[int, dict[Where, float]]] = {}
    for run in runs:
        if run.scenario == scenario and run.policy != FEASIBLE:
            by.setdefault(run.policy, {}).setdefault(run.seed, {})[place_of(run)] = run.effective_quality / best * 100
    means = {policy: {seed: fmean(of.values()) for seed, of in seeds.items()} for policy, seeds in by.items()}
    statics = [policy for policy in means if policy.startswith(STATIC)]
    found = {policy: of for policy, of in means.items() if policy not in statics}
    if statics:
        found[BEST_STATIC] = means[max(statics, key=lambda one: _mean(means[one]))]
    return found


def _mean(of: Mapping[int, float]) -> float:
    return fmean(of.values())


def _spread(of: Mapping[int, float]) -> Spread:
    return Spread.of(list(of.values()))


def _gap(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Spread:
    return Spread.of([ours[seed] - theirs[seed] for seed in ours if seed in theirs])


def _text(spread: Spread, sign: bool = False) -> str:
    mean = signed(spread.mean, 2) if sign else f"{spread.mean:.2f}"
    return mean if spread.margin is None else f"{mean} ± {spread.margin:.2f}"


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _best(simulation: Simulation) -> float:
    """The best quality of a scenario's variants; of several tasks the runs count in shares of each task's best."""
    return max(one.quality for one in simulation.variants) if len(simulation.scenario.tasks) == 1 else 1.0


def _order(run: RunResult) -> tuple[str, str, float, float, int]:
    return run.scenario, run.policy, run.cv, run.load, run.seed


def _command_line(policies: Sequence[str] | None, longer: float | None, seeds: Sequence[int] | None) -> str:
    """The command that reproduces the results, without output files and number of processes."""
    words = ["punctual", "simulate", "made-up"]
    for policy in policies or ():
        words += ["--policy", policy]
    if longer:
        words += ["--longer", f"{longer:g}"]
    if seeds:
        words += ["--seeds", *map(str, seeds)]
    return shlex.join(words)
