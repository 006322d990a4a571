"""The command: `punctual serve`, `prepare`, `export`, `profile`, `catalog`, `explain`, `simulate`, `load` and `bench`.

A door to each of the rooms. What a command needs is imported when it runs, so that `punctual --help` and
`catalog check` answer at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from platformdirs import user_cache_path
from rich.console import Console
from rich.table import Table

from deployments.serve.command import serve_arguments
from gateway.catalogs.catalog import CatalogError, load_catalog
from gateway.model.manifest import Precision
from gateway.scheduling.policy import Decision
from loadtests import commands as single
from loadtests import decision_commands, observing_commands, sharing_commands
from loadtests import decoding_commands as decoding
from loadtests import summary_commands as summaries
from loadtests.offering import commands as offering
from loadtests.simulator import commands as simulator

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Exit status: 0 done, 1 it failed and said why, 2 it was called wrongly, 130 interrupted."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        return 130
    except _expected() as error:
        errors.print(f"[red]error:[/red] {error}", markup=True)
        return 1
    return status


def serve(options: argparse.Namespace) -> int:
    """Prepares what is missing on this host, then serves until Ctrl-C."""
    from deployments.serve.command import serve_command
    from exporters.command import with_floor
    from exporters.plan import Settings
    from exporters.prepare import prepare

    catalog = load_catalog(options.catalog)
    started = time.monotonic()
    variants = prepare(catalog, options.cache, console, settings=with_floor(Settings(), options, console))

    def say(what: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.1f} s[/dim]  {what}")

    serve_command(catalog, variants, options, say)
    return 0


def prepare(options: argparse.Namespace) -> int:
    """Prepares what a catalog's checkpoints lack in the cache, for a cluster that serves from there."""
    from exporters.command import prepare_command

    return prepare_command(load_catalog(options.catalog), options, console)


def export(options: argparse.Namespace) -> int:
    """Makes one verified, profiled variant of a checkpoint; one under its floor is refused with what differed."""
    from exporters.command import export_command

    return export_command(options, console)


def profile(options: argparse.Namespace) -> int:
    """Measures the latency profile of every variant of a catalog on this host anew."""
    from exporters.command import profile_command

    return profile_command(load_catalog(options.catalog), options, console)


def check(options: argparse.Namespace) -> int:
    """Says whether a catalog is valid; if not, every fault by file, line and field."""
    catalog = load_catalog(options.catalog)
    console.print(f"{options.catalog}: {len(catalog.checkpoints)} checkpoints, tasks {', '.join(catalog.tasks)}: valid")
    return 0


def show(options: argparse.Namespace) -> int:
    """Prints a catalog as a table."""
    table = Table("checkpoint", "task", "tier", "quality", "source", box=None)
    table.columns[0].no_wrap = True
    table.columns[4].overflow = "fold"
    for entry in load_catalog(options.catalog).checkpoints:
        quality = f"{entry.quality.value:g} {entry.quality.metric}"
        table.add_row(entry.name, entry.task, entry.tier, quality, entry.source)
    console.print(table)
    return 0


def explain(options: argparse.Namespace) -> int:
    """Prints the decision for one text and budget: every candidate with forecast and verdict, as on an idle gateway."""
    from exporters.prepare import prepare
    from gateway.model.errors import ms_above
    from gateway.model.request import Terms
    from gateway.router import explain
    from gateway.tasks import read_manifest

    catalog = load_catalog(options.catalog)
    manifests = {name: read_manifest(at) for name, at in prepare(catalog, options.cache, console).items()}
    budget_s = None if options.budget_ms is None else options.budget_ms / 1000
    text = options.text if options.file is None else options.file.read_text(encoding="utf-8")
    terms = Terms(budget_s=budget_s, percentile=options.percentile, strict=options.strict, domain=options.domain)
    decision = explain(catalog, manifests, options.task, text, terms, options.price)
    console.print(_candidates(decision, len(text), options.percentile))
    if decision.price:
        console.print(f"congestion price: {decision.price:g} points of quality a core-second")
    if decision.chosen:
        console.print(f"chosen: [bold]{decision.chosen.name}[/bold] ({decision.reason})")
    elif decision.min_feasible_s:
        console.print(f"refused: {decision.refusal}; least feasible budget {ms_above(decision.min_feasible_s):g} ms")
    else:
        console.print(f"refused: {decision.refusal}")
    return 0


def _candidates(decision: Decision, characters: int, percentile: float) -> Table:
    """Forecasts in ms and costs in core-ms; what each is worth, and what of that its price leaves, in points."""
    from gateway.api.responses import ms, utility_left

    titles = ("checkpoint", "tier", "worth", "least", "median", f"p{percentile:g}", "cost", "left", "verdict")
    table = Table(*titles, box=None, padding=(0, 1, 0, 0))
    table.columns[0].no_wrap = table.columns[-1].no_wrap = True
    table.title = f"forecasts and cost in ms, {characters} characters, an idle gateway"
    for assessed in decision.assessed:
        candidate, forecast = assessed.candidate, assessed.candidate.forecast
        times = (forecast.least_s, forecast.latency_s, forecast.quantile_s, forecast.cost_s) if forecast else ()
        cells = [f"{ms(seconds):.2f}" for seconds in times] or ["-"] * 4
        left = utility_left(assessed, decision.price)
        cells.append("-" if left is None else f"{left:.1f}")
        table.add_row(candidate.name, candidate.tier, f"{candidate.utility:.1f}", *cells, assessed.verdict)
    return table


def bench(options: argparse.Namespace) -> int:
    """Runs one of the measurements that start what they measure from a catalog."""
    from exporters.prepare import prepare

    catalog = load_catalog(options.catalog)
    status: int = options.measure(options, catalog, prepare(catalog, options.cache, console), console)
    return status


def bench_alone(options: argparse.Namespace) -> int:
    """Runs one of the measurements that need no catalog."""
    status: int = options.measure(options, console)
    return status


def _expected() -> tuple[type[Exception], ...]:
    """The errors that are the operator's to read: a sentence, not a traceback."""
    from deployments.observing import LogUnwritable
    from deployments.replica.variant import VariantRejected
    from deployments.serve.environment import PortTaken
    from deployments.serve.serving import NotReady
    from deployments.tracing import TracingMissing
    from exporters.errors import ExportError
    from gateway.model.errors import Problem
    from loadtests.errors import LoadTestError

    told = (CatalogError, ExportError, VariantRejected, PortTaken, LogUnwritable, NotReady, TracingMissing)
    return (*told, Problem, LoadTestError)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="punctual", description="An inference gateway that answers on time.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = _command(commands, "serve", serve)
    _catalog(one)
    serve_arguments(one)
    _floor(one)

    one = _command(commands, "prepare", prepare)
    _catalog(one)

    one = _command(commands, "export", export)
    one.add_argument("checkpoint", help="starter:NAME, a folder, or a Hub id OWNER/NAME")
    one.add_argument("--revision", help="the Hub repository's full commit, required for a Hub id")
    one.add_argument("--precision", type=Precision, choices=list(Precision), default=Precision.INT8)
    one.add_argument("--out", type=Path, help="the variant's folder (default: below the cache)")
    _floor(one)
    _cache(one)

    one = _command(commands, "profile", profile)
    _catalog(one)

    group = commands.add_parser("catalog", help="check or show a catalog").add_subparsers(required=True)
    for name, run in (("check", check), ("show", show)):
        one = _command(group, name, run)
        one.add_argument("catalog", nargs="?", default="starter", help="starter, hub or a file")

    one = _command(commands, "explain", explain)
    _catalog(one)
    one.add_argument("--task", default="classify")
    given = one.add_mutually_exclusive_group(required=True)
    given.add_argument("--text")
    given.add_argument("--file", type=Path, help="the text is in this file")
    one.add_argument("--domain", help="what the text is about, as parameters.domain says it")
    one.add_argument("--budget-ms", type=float, help="(default: the task's)")
    one.add_argument("--percentile", type=float, default=95.0, help="(default: %(default)s)")
    one.add_argument("--strict", action="store_true", help="refuse rather than be late")
    one.add_argument("--price", type=float, help="points of quality a core-second (default: none, as where idle)")

    one = _command(commands, "simulate", bench_alone, simulator.simulate.__doc__)
    one.set_defaults(measure=simulator.simulate)
    simulator.simulate_arguments(one)
    _cache(one)

    one = _command(commands, "load", bench_alone, offering.load.__doc__)
    one.set_defaults(measure=offering.load)
    offering.load_arguments(one)

    _measurements(commands)
    return parser


def _measurements(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    measuring = commands.add_parser("bench", help="Measures against named baselines and promises.")
    kinds = measuring.add_subparsers(required=True, metavar="KIND")
    for name, measure, arguments in (
        ("speed", single.speed, single.speed_arguments),
        ("accuracy", single.accuracy, single.accuracy_arguments),
        ("budgets", summaries.budgets, summaries.budgets_arguments),
        ("coexistence", summaries.coexistence, summaries.coexistence_arguments),
        ("memory", summaries.memory, summaries.memory_arguments),
        ("observed", observing_commands.observed, observing_commands.observed_arguments),
        ("scrape", observing_commands.scrape, observing_commands.scrape_arguments),
    ):
        one = _command(kinds, name, bench, measure.__doc__)
        one.set_defaults(measure=measure)
        _catalog(one)
        arguments(one)
    for name, measure_alone, arguments in (
        ("load", single.load, single.load_arguments),
        ("ceiling", offering.ceiling, offering.ceiling_arguments),
        ("decision", decision_commands.decision, decision_commands.decision_arguments),
        ("engines", decoding.engines, decoding.engines_arguments),
        ("sharing", sharing_commands.sharing, sharing_commands.sharing_arguments),
    ):
        one = _command(kinds, name, bench_alone, measure_alone.__doc__)
        one.set_defaults(measure=measure_alone)
        arguments(one)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    about: str | None = None,
) -> argparse.ArgumentParser:
    first = (about or run.__doc__ or "").partition("\n")[0]
    parser = commands.add_parser(name, help=first, description=first)
    parser.set_defaults(run=run)
    return parser


def _catalog(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--catalog", default="starter", help="starter, hub or a file (default: %(default)s)")
    _cache(parser)


def _floor(parser: argparse.ArgumentParser) -> None:
    about = "the least agreement with its source that a variant needs, 0 to 1, for weights that are random"
    parser.add_argument("--floor", type=float, help=f"{about} (default: its kind's own)")


def _cache(parser: argparse.ArgumentParser) -> None:
    default = Path(os.environ.get("PUNCTUAL_CACHE") or user_cache_path("punctual"))
    parser.add_argument("--cache", type=Path, default=default, help="where variants are kept (default: %(default)s)")


if __name__ == "__main__":
    sys.exit(main())
