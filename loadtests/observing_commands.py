"""The commands `punctual bench scrape` and `punctual bench observed`: their options, what they show and write, and
their exit status.

Exit status: 0 where every target is met, else 1. Raises LoadTestError. Light to import, like `commands`: what is
measured is imported when it runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from gateway.catalogs.catalog import Catalog
from loadtests.arguments import at_least, positive


def scrape_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `punctual bench scrape`, beside the catalog's."""
    parser.add_argument("--rounds", type=at_least(1), default=6, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=at_least(1), default=8, help="of each turn (default: %(default)s)")
    parser.add_argument("--connections", type=at_least(1), default=16, help="(default: %(default)s)")
    parser.add_argument("--checkpoint", help="the one that answers (default: the first of the realtime tier)")
    log = "have a second gateway, which writes its access log, take turns with the first: what the log costs"
    parser.add_argument("--access-log", action="store_true", help=log)
    parser.add_argument("--seed", type=int, default=31, help="of the order (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write every turn there")


def scrape(options: argparse.Namespace, catalog: Catalog, variants: Mapping[str, Path], console: Console) -> int:
    """Measures what a scrape of /metrics each second costs the request path."""
    from loadtests.scraping import ScrapingSettings, scraping
    from loadtests.scraping_report import print_scraping, write_scraping

    settings = ScrapingSettings(
        rounds=options.rounds,
        seconds=options.seconds,
        connections=options.connections,
        checkpoint=options.checkpoint,
        access_log=options.access_log,
        seed=options.seed,
    )
    report = scraping(catalog, variants, settings, console)
    print_scraping(report, console)
    if options.json:
        write_scraping(report, options.json)
    return 0 if report.met else 1


def observed_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `punctual bench observed`, beside the catalog's."""
    scenario = "a shipped scenario's name, or a file (default: %(default)s)"
    parser.add_argument("--scenario", default="live-watched", help=scenario)
    parser.add_argument("--seconds", type=positive, default=120.0, help="of load (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of arrivals and texts (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write what was found there")


def observed(options: argparse.Namespace, catalog: Catalog, variants: Mapping[str, Path], console: Console) -> int:
    """Has a real Prometheus watch a gateway under mixed load, and compares what it has with the client's own count."""
    from loadtests.observed import ObservedSettings, targets
    from loadtests.observed import observed as measure
    from loadtests.observed_report import print_observed, write_observed

    settings = ObservedSettings(options.scenario, options.seconds, seed=options.seed)
    report = measure(catalog, variants, settings, console)
    print_observed(report, console)
    if options.json:
        write_observed(report, options.json)
    return 0 if all(target.met for target in targets(report)) else 1
