"""The commands behind `punctual bench budgets`, `coexistence` and `memory`: their options, output and exit status.

Exit status: 0 as promised, 1 a target missed, a fault found or a run that is not valid. Raises LoadTestError.
Light to import, so that `punctual --help` stays quick: each command imports its measurement when it runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from gateway.catalogs.catalog import Catalog
from loadtests.arguments import at_least, positive

FEWEST_SUMMARIES = 20


def budgets_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `punctual bench budgets`, beside the catalog's."""
    parser.add_argument("--texts", type=at_least(1), default=200, help="half of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=13, help="of texts and budgets (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write every request there")
    parser.add_argument("--svg", type=Path, help="draw latency against budget there")


def budgets(options: argparse.Namespace, catalog: Catalog, variants: Mapping[str, Path], console: Console) -> int:
    """Sends real texts with drawn budgets, one at a time, and says whether each was answered in time."""
    from loadtests.budgets import BudgetSettings
    from loadtests.budgets import budgets as measure
    from loadtests.budgets_figures import promises
    from loadtests.budgets_plot import write_budgets_svg
    from loadtests.budgets_report import print_budgets, write_budgets

    report = measure(catalog, variants, BudgetSettings(texts=options.texts, seed=options.seed), console)
    print_budgets(report, console)
    if options.json:
        write_budgets(report, options.json)
    if options.svg:
        write_budgets_svg(report, options.svg)
    return 0 if all(promise.met for promise in promises(report)) else 1


def coexistence_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `punctual bench coexistence`, beside the catalog's."""
    parser.add_argument("--classifier", help="the one to measure (default: the first of the realtime tier)")
    parser.add_argument("--summarizer", help="the one beside it (default: the slowest of the quality tier)")
    parser.add_argument("--summarizers", type=at_least(1), default=1, help="clients of it (default: %(default)s)")
    parser.add_argument("--rate", type=positive, default=20.0, help="classifications a second (default: %(default)s)")
    parser.add_argument("--seconds", type=positive, default=20.0, help="of each turn (default: %(default)s)")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="(default: %(default)s)")
    parser.add_argument("--budget-ms", type=positive, default=50.0, help="of a classification (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=17, help="of order and arrivals (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write every turn there")


def coexistence(options: argparse.Namespace, catalog: Catalog, variants: Mapping[str, Path], console: Console) -> int:
    """Measures a classifier alone and beside a summarizer that is kept busy, in alternating turns."""
    from loadtests.coexistence import CoexistenceSettings
    from loadtests.coexistence import coexistence as measure
    from loadtests.coexistence_report import print_coexistence, write_coexistence
    from loadtests.coexistence_turns import met

    settings = CoexistenceSettings(
        rate=options.rate,
        seconds=options.seconds,
        rounds=options.rounds,
        budget_ms=options.budget_ms,
        summarizers=options.summarizers,
        seed=options.seed,
        classifier=options.classifier,
        summarizer=options.summarizer,
    )
    report = measure(catalog, variants, settings, console)
    print_coexistence(report, console)
    if options.json:
        write_coexistence(report, options.json)
    return 0 if met(report.turns) else 1


def memory_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `punctual bench memory`, beside the catalog's."""
    parser.add_argument(
        "--summaries", type=at_least(FEWEST_SUMMARIES), default=1000, help="in all (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=23, help="of texts and budgets (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write every sample there")


def memory(options: argparse.Namespace, catalog: Catalog, variants: Mapping[str, Path], console: Console) -> int:
    """Has every summarizer write in turn and watches its resident memory."""
    from loadtests.memory import MemorySettings
    from loadtests.memory import memory as measure
    from loadtests.memory_report import print_memory, write_memory

    report = measure(catalog, variants, MemorySettings(summaries=options.summaries, seed=options.seed), console)
    print_memory(report, console)
    if options.json:
        write_memory(report, options.json)
    return 0 if report.steady else 1
