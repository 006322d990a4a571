"""The command `punctual simulate`: its options, what it shows and writes, and its exit status.

Exit status: 0, or 1 where the gateway's own policy is below a baseline at some place by more than chance explains, or
has too little of the clairvoyant bound. Raises LoadTestError. Light to import, so that `punctual --help` stays quick:
the simulator is imported when it runs.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from rich.console import Console

from loadtests.arguments import at_least, positive

if TYPE_CHECKING:
    from loadtests.results.grid import Grid
    from loadtests.scenarios.model import Scenario
    from loadtests.simulator.runs import Insisted, Order, Ran
    from loadtests.simulator.variants import Variant

AXES = ("loads", "cvs", "seeds")
REFUSALS = 100


def simulate_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `punctual simulate`, beside the cache's."""
    parser.add_argument("scenario", help="a shipped scenario's name, or a file")
    policy = "play this one; may be repeated (default: every policy that there is for the scenario)"
    parser.add_argument("--policy", action="append", metavar="NAME", help=policy)
    numbers = "(default: the scenario's)"
    parser.add_argument("--loads", nargs="+", type=positive, help=numbers)
    parser.add_argument("--cvs", nargs="+", type=positive, help=numbers)
    parser.add_argument("--seeds", nargs="+", type=int, help=numbers)
    parser.add_argument("--seconds", type=positive, help=f"of each run, beside the warm-up {numbers}")
    jobs = "processes that simulate; results do not depend on it (default: the cores there are)"
    parser.add_argument("--jobs", type=at_least(1), metavar="N", help=jobs)
    shadow = "admit N refused requests of each run after all, one at a time, and say how many were refused rightly"
    given = f"{shadow} (default: none; {REFUSALS} without N)"
    parser.add_argument("--shadow", nargs="?", type=at_least(1), const=REFUSALS, default=0, metavar="N", help=given)
    parser.add_argument("--json", type=_file, help="write every run there; JSON Lines where it ends in .jsonl")
    parser.add_argument("--html", type=_file, help="write a page of plots and tables there")
    parser.add_argument("--markdown", type=_file, help="write the tables there, for a document")


def simulate(options: argparse.Namespace, console: Console) -> int:
    """Plays a scenario on a virtual clock under the gateway's own policy and under published ones."""
    from loadtests.results.files import write_json
    from loadtests.results.roles import Roles
    from loadtests.simulator.runs import in_order, orders_of, usable_cores
    from loadtests.simulator.showing import effort, grids_of, markdown_of, refusal_grid
    from loadtests.simulator.verdicts import sentences, verdict_of

    began_s = perf_counter()
    scenario = _scenario(options)
    variants = _variants(scenario, options.cache, console)
    policies, jobs = _policies(options.policy, scenario, variants), options.jobs or usable_cores()
    orders = orders_of(scenario, policies, options.html is not None, options.shadow)
    ran = _ran(scenario, variants, orders, jobs, console)
    insisted = _insisted(scenario, variants, ran, jobs, console) if options.shadow else []
    recorded = in_order(ran, orders)
    runs = [one.result for one in recorded]
    roles = Roles.of(runs)
    verdict = verdict_of(runs, roles)
    said = sentences(verdict, runs, roles)
    grids = [*grids_of(runs, roles), *([refusal_grid(insisted)] if insisted else [])]
    _show(grids, said, verdict.good, console)
    if options.json:
        write_json(runs, options.json)
    if options.markdown:
        text = markdown_of(scenario, command_line(options), said, runs, grids)
        options.markdown.write_text(text, encoding="utf-8")
    if options.html:
        from loadtests.results.report import write_report

        write_report(scenario, runs, options.html, recorded)
    console.print(effort(ran, perf_counter() - began_s, jobs))
    return 0 if verdict.good else 1


def command_line(options: argparse.Namespace) -> str:
    """The command that gives the same results: without what says where they go and who works on them."""
    words = ["punctual", "simulate", str(options.scenario)]
    for policy in options.policy or ():
        words += ["--policy", policy]
    for name in AXES:
        if values := getattr(options, name):
            words += [f"--{name}", *(f"{value:g}" for value in values)]
    if options.seconds:
        words += ["--seconds", f"{options.seconds:g}"]
    if options.shadow:
        words += ["--shadow", str(options.shadow)]
    return shlex.join(words)


def _scenario(options: argparse.Namespace) -> Scenario:
    from loadtests.offering.overrides import overridden
    from loadtests.scenarios.reading import read_scenario

    given = {name: getattr(options, name) for name in (*AXES, "seconds")}
    return overridden(read_scenario(options.scenario), given)


def _variants(scenario: Scenario, cache: Path, console: Console) -> tuple[Variant, ...]:
    """Those of the scenario; made, verified and profiled on this host where they are a catalog's and are not there."""
    from loadtests.scenarios.manifests import catalog_of, variants_of

    catalog = catalog_of(scenario)
    if catalog is None:
        return variants_of(scenario)
    from exporters.prepare import prepare

    return variants_of(scenario, prepare(catalog, cache, console))


def _policies(named: Sequence[str] | None, scenario: Scenario, variants: Sequence[Variant]) -> Sequence[str]:
    """Those named, each once; all where none is. Raises UnknownPolicy."""
    from loadtests.simulator.errors import UnknownPolicy
    from loadtests.simulator.play import policies_of

    known = policies_of(scenario, variants)
    for policy in named or ():
        if policy not in known:
            raise UnknownPolicy(policy, *known)
    return tuple(dict.fromkeys(named or known))


def _ran(
    scenario: Scenario, variants: Sequence[Variant], orders: Sequence[Order], jobs: int, console: Console
) -> list[Ran]:
    from loadtests.simulator.runs import run_all
    from loadtests.simulator.showing import shown

    ran: list[Ran] = []
    with shown("runs", len(orders), console) as bar:
        for one in run_all(scenario, variants, orders, jobs):
            ran.append(one)
            bar.over(ran)
    return ran


def _insisted(
    scenario: Scenario, variants: Sequence[Variant], ran: Sequence[Ran], jobs: int, console: Console
) -> list[Insisted]:
    from loadtests.simulator.runs import insist_all
    from loadtests.simulator.showing import shown

    insisted: list[Insisted] = []
    total = sum(len(one.refused) for one in ran)
    if not total:
        console.print("no strict request was refused, so there is none to try once more")
        return insisted
    with shown("refusals", total, console) as bar:
        for one in insist_all(scenario, variants, ran, jobs):
            insisted.append(one)
            bar.over()
    return insisted


def _show(grids: Sequence[Grid], said: Sequence[str], good: bool, console: Console) -> None:
    for grid in grids:
        console.print(grid.rich())
    for sentence in said:
        console.print(sentence, style=None if good else "red", markup=False)


def _file(text: str) -> Path:
    """A file that can be written, by its folder: that is said before an hour of runs, not after."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} cannot be written there")
    return path
