"""The command `punctual simulate`: options, output and exit status.

Exit status: 0, or 1 if the gateway's policy is significantly below a baseline at some place, or has too small a share
of the oracle's bound. Raises LoadTestError.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, ClassVar

import typer
from rich.console import Console
from rich.progress import track

from exporters.options import DEFAULT_CACHE, CacheOption
from loadtests.reports.comparison import Place, Roles
from loadtests.reports.runs import RunResult, write_json
from loadtests.reports.tables import Entry, Grid, Row, bound_grids, figure_grids, margin_grid, overall_grid
from loadtests.simulator.runs import Insisted, Ran, in_order, insist_all, orders_of, run_all, usable_cores
from loadtests.simulator.simulation import BOUND, FEASIBLE, OURS, Simulation, UnknownPolicy
from loadtests.simulator.verdicts import sentences, verdict_of
from loadtests.workload.options import (
    CvsOption,
    HtmlOption,
    JobsOption,
    JsonOption,
    LoadsOption,
    MarkdownOption,
    ScenarioArgument,
    ScenarioCommand,
    SecondsOption,
    SeedsOption,
)
from loadtests.workload.scenario import Scenario, overridden, read_scenario
from loadtests.workload.variants import Variant, catalog_of, variants_of

REFUSALS = 100
FORMER = {"clairvoyant": BOUND}
"""Former names of policies, still accepted."""


SEVERAL = {
    "ablation": "loadtests.simulator.ablation_command:app",
    "made-up": "loadtests.simulator.several:app",
}
"""What is played in the place of one scenario: the command of each name, with options of its own."""


class SimulateCommand(ScenarioCommand):
    """Accepts `--shadow` without a number, and passes the names of `SEVERAL` to their commands."""

    alone: ClassVar = {"--shadow": str(REFUSALS)}

    def make_context(self, info_name: str | None, args: list[str], *arguments: Any, **more: Any) -> Any:
        """The context of this command, or of the one that the first word names."""
        if not args or args[0] not in SEVERAL:
            return super().make_context(info_name, args, *arguments, **more)
        module, _, name = SEVERAL[args[0]].partition(":")
        other = typer.main.get_command(getattr(import_module(module), name))
        return other.make_context(f"{info_name} {args[0]}", args[1:], *arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command of the context."""
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)


app = typer.Typer(add_completion=False, rich_markup_mode=None)

PolicyOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="run this policy; may be repeated (default: all policies)"),
]
ShadowOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="[N]",
        help="admit N refused requests of each run, one at a time, and report how many were refused rightly "
        f"(default: none; {REFUSALS} without N)",
    ),
]


@app.command(cls=SimulateCommand)
def simulate(
    scenario: ScenarioArgument,
    cache: CacheOption = DEFAULT_CACHE,
    policy: PolicyOption = None,
    loads: LoadsOption = None,
    cvs: CvsOption = None,
    seeds: SeedsOption = None,
    seconds: SecondsOption = None,
    jobs: JobsOption = None,
    shadow: ShadowOption = None,
    json: JsonOption = None,
    html: HtmlOption = None,
    markdown: MarkdownOption = None,
) -> None:
    """Simulates a scenario under the gateway's policy and under published ones.

    In the place of SCENARIO, made-up plays eleven scenarios of made-up catalogs, and ablation switches each part of the
    gateway's policy off in turn; both have options of their own.
    """
    began_s, console = perf_counter(), Console(highlight=False)
    numbers = {"loads": loads, "cvs": cvs, "seeds": seeds, "seconds": seconds}
    of = overridden(read_scenario(scenario), numbers)
    simulation = Simulation(of, prepared_variants(of, cache, console))
    processes = jobs or usable_cores()
    orders = orders_of(of, _policies(policy, simulation), html is not None, shadow or 0)
    ran = list(track(run_all(simulation, orders, processes), "runs", len(orders), console=console))
    recorded = in_order(ran, orders)
    runs = [one.result for one in recorded]
    grids = grids_of(runs)
    if shadow:
        grids += _refusals(simulation, ran, processes, console)
    verdict = verdict_of(runs, Roles.of(runs))
    said = sentences(verdict, runs, Roles.of(runs))
    for grid in grids:
        console.print(grid.rich())
    for sentence in said:
        console.print(sentence, style=None if verdict.good else "red", markup=False)
    if json:
        write_json(runs, json)
    if markdown:
        command = command_line(scenario, policy or (), numbers, shadow)
        markdown.write_text(markdown_of(of, command, said, runs, grids), encoding="utf-8")
    if html:
        from loadtests.reports.report import write_report  # needs Matplotlib, which may be missing

        write_report(of, runs, html, recorded)
    console.print(effort(ran, perf_counter() - began_s, processes))
    raise typer.Exit(0 if verdict.good else 1)


def command_line(scenario: str, policies: Sequence[str], numbers: Mapping[str, object], shadow: int | None) -> str:
    """The command that reproduces the results, without output files and number of processes."""
    words = ["punctual", "simulate", scenario]
    for policy in policies:
        words += ["--policy", policy]
    for name, given in numbers.items():
        if given:
            words += [f"--{name}", *(f"{value:g}" for value in (given if isinstance(given, list) else [given]))]
    if shadow:
        words += ["--shadow", str(shadow)]
    return shlex.join(words)


def grids_of(runs: Sequence[RunResult]) -> list[Grid]:
    """Tables: overall, effective quality by policy and load, ours against the best baseline, shares of the bound."""
    roles = Roles.of(runs)
    to_bound = replace(roles, bounds=tuple(name for name in roles.bounds if name == BOUND))
    grids = (overall_grid(runs, roles), *figure_grids(runs, roles), margin_grid(runs, roles))
    return [grid for grid in (*grids, *bound_grids(runs, to_bound)) if grid.rows]


def refusal_grid(insisted: Sequence[Insisted]) -> Grid:
    """The share of refusals that were right: admitted in a second run, the request was not answered in time."""
    groups: dict[str, list[Insisted]] = {}
    for one in sorted(insisted, key=lambda one: Place(one.place.cv, one.place.load)):
        groups.setdefault(f"CV {one.place.cv:g}, load {one.place.load:g}", []).append(one)
    if len(groups) > 1:
        groups["all"] = list(insisted)
    rows = []
    for where, of in groups.items():
        rightly = sum(one.rightly for one in of)
        entries = (Entry(str(len(of))), Entry(str(rightly)), Entry(f"{rightly / len(of) * 100:.1f} %"))
        rows.append(Row(Entry(where), entries))
    return Grid(
        "Refused strict requests, admitted in a second run",
        ("where", "tried", "late or failed", "refused rightly"),
        tuple(rows),
        "Each sampled request was admitted, whatever its forecast, in a run of its own under the same seed.",
    )


def markdown_of(
    scenario: Scenario, command: str, said: Sequence[str], runs: Sequence[RunResult], grids: Sequence[Grid]
) -> str:
    """The results in Markdown: the command that reproduces them, the verdict and the tables.

    Equal runs give equal text: it holds no run times and no number of processes.
    """
    about = f"{scenario.about}: " if scenario.about else ""
    played = [run for run in runs if run.policy != FEASIBLE]  # the lower end of the bound, not a run of its own
    offered = sum(run.offered for run in played)
    count = f"{about}{len(played)} simulated runs of {scenario.seconds:g} s, {offered:,} requests counted."
    parts = [f"## {scenario.name}\n", f"```\n{command}\n```\n", f"{count[0].upper()}{count[1:]}\n"]
    if said:
        parts.append("\n".join(f"- {sentence}" for sentence in said) + "\n")
    return "\n".join([*parts, *(grid.markdown() for grid in grids)])


def effort(ran: Sequence[Ran], seconds: float, jobs: int) -> str:
    """The time that the runs took; the bound's apart, since it is computed and not simulated."""
    on_clock = [one for one in ran if one.order.policy != BOUND]
    bounds = [one for one in ran if one.order.policy == BOUND]
    ours = [one for one in on_clock if one.order.policy == OURS]
    parts = []
    if on_clock:
        requests = sum(one.requests for one in on_clock)
        own = f" ({OURS} alone {speed(ours):,.0f})" if ours and len(ours) < len(on_clock) else ""
        parts.append(
            f"{requests:,} requests in {len(on_clock)} runs simulated, {speed(on_clock):,.0f} a second of a core{own}"
        )
    if bounds:
        parts.append(f"{sum(one.core_s for one in bounds):,.1f} s of a core for the bound in {len(bounds)} runs")
    return f"{'; '.join(parts)}; {seconds:,.1f} s in all with {jobs} {'process' if jobs == 1 else 'processes'}"


def speed(ran: Sequence[Ran]) -> float:
    """Simulated requests per core-second; 0 for no runs."""
    core_s = sum(one.core_s for one in ran)
    return sum(one.requests for one in ran) / core_s if core_s else 0.0


def prepared_variants(scenario: Scenario, cache: Path, console: Console) -> tuple[Variant, ...]:
    """The scenario's variants; prepares missing variants of a catalog on this host."""
    catalog = catalog_of(scenario)
    if catalog is None:
        return variants_of(scenario)
    from exporters.preparing.prepare import prepare

    return variants_of(scenario, prepare(catalog, cache, console))


def _policies(named: Sequence[str] | None, simulation: Simulation) -> Sequence[str]:
    """The named policies without duplicates, or all if none is named. Raises UnknownPolicy."""
    known = simulation.policies
    wanted = tuple(dict.fromkeys(FORMER.get(name, name) for name in named or known))
    for policy in wanted:
        if policy not in known:
            raise UnknownPolicy(policy, *known)
    return wanted


def _refusals(simulation: Simulation, ran: Sequence[Ran], jobs: int, console: Console) -> list[Grid]:
    """Admits each sampled refusal in a run of its own and tabulates the outcomes."""
    total = sum(len(one.refused) for one in ran)
    if not total:
        console.print("no strict request was refused, so there is none to admit in a second run")
        return []
    insisted = track(insist_all(simulation, ran, jobs), "refusals", total, console=console)
    return [refusal_grid(list(insisted))]
