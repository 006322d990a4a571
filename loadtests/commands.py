"""The commands behind `punctual bench`: their options, what they show and write, and their exit status.

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


def speed_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `punctual bench speed`, beside the catalog's."""
    parser.add_argument("--checkpoint", help="the one to race (default: the first of the realtime tier)")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=at_least(1), default=5, help="of each turn (default: %(default)s)")
    parser.add_argument("--connections", type=at_least(2), default=16, help="of the crowd (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=20, help="of the order (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write every turn there")
    parser.add_argument("--svg", type=Path, help="draw the standings there")


def speed(options: argparse.Namespace, catalog: Catalog, variants: Mapping[str, Path], console: Console) -> int:
    """Races the gateway against FastAPI and the bare engine."""
    from loadtests.race import RaceSettings, race
    from loadtests.race_report import print_report, write_json, write_svg
    from loadtests.verdicts import targets

    settings = RaceSettings(
        rounds=options.rounds,
        seconds=options.seconds,
        connections=options.connections,
        seed=options.seed,
        checkpoint=options.checkpoint,
    )
    report = race(catalog, variants, settings, console)
    print_report(report, console)
    if options.json:
        write_json(report, options.json)
    if options.svg:
        write_svg(report, options.svg)
    return 0 if all(target.met for target in targets(report)) else 1


def accuracy_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `punctual bench accuracy`, beside the catalog's."""
    parser.add_argument("--concurrency", type=at_least(1), default=8, help="requests at once (default: %(default)s)")
    parser.add_argument("--against-source", action="store_true", help="run every checkpoint's source too, with torch")
    parser.add_argument("--json", type=Path, help="write what was found there")


def accuracy(options: argparse.Namespace, catalog: Catalog, variants: Mapping[str, Path], console: Console) -> int:
    """Sends every held-out sentence over HTTP and compares the labels with what was verified."""
    from loadtests.accuracy import AccuracySettings
    from loadtests.accuracy import accuracy as measure
    from loadtests.accuracy_report import print_accuracy, write_accuracy

    settings = AccuracySettings(concurrency=options.concurrency, against_source=options.against_source)
    report = measure(catalog, variants, settings, console)
    print_accuracy(report, console)
    if options.json:
        write_accuracy(report, options.json)
    return 0 if report.faultless else 1


def load_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `punctual bench load`."""
    parser.add_argument("--url", default="http://127.0.0.1:8000/classify", help="(default: %(default)s)")
    parser.add_argument("--rate", type=positive, required=True, help="requests a second, Poisson arrivals")
    parser.add_argument("--seconds", type=positive, required=True)
    parser.add_argument("--budget-ms", type=positive, help="sent as X-Latency-SLA-Ms (default: none)")
    parser.add_argument("--checkpoint", help="pin this one")
    parser.add_argument("--strict", action="store_true", help="have what cannot be in time refused")
    parser.add_argument("--seed", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the counts there")


def load(options: argparse.Namespace, console: Console) -> int:
    """Offers open-loop load to a gateway that runs."""
    from gateway.api.headers import CHECKPOINT, MODE
    from loadtests.load_report import print_load, summarised, write_load
    from loadtests.open_loop import LoadSettings, offer
    from loadtests.sentences import classify_body, shuffled_texts

    headers = {CHECKPOINT: options.checkpoint} if options.checkpoint else {}
    if options.strict:
        headers[MODE] = "strict"
    settings = LoadSettings(options.rate, options.seconds, options.budget_ms, options.seed, headers=headers)
    bodies = [classify_body(text) for text in shuffled_texts()]
    with console.status(f"offering {options.rate:g} requests/s for {options.seconds:g} s"):
        shots = offer(options.url, bodies, settings)
    report = summarised(shots, settings)
    print_load(report, console)
    if options.json:
        write_load(report, options.json)
    return 0 if report.valid else 1
