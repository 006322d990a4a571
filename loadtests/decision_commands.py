"""The command `punctual bench decision`: its options, what it shows, and its exit status.

Light to import, like `commands`: the measurement is imported when it runs.
"""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from loadtests.arguments import at_least


def decision_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `punctual bench decision`."""
    parser.add_argument("--rounds", type=at_least(1), default=7, help="(default: %(default)s)")
    parser.add_argument("--decisions", type=at_least(2), default=1000, help="of each round (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=11, help="of texts, budgets and load (default: %(default)s)")


def decision(options: argparse.Namespace, console: Console) -> int:
    """Measures how long the gateway takes to decide; 1 where it is too long with the most candidates."""
    from loadtests.decision import CEILING_S, COUNTS, DecisionSettings, Situation, timed, too_slow

    timings = timed(DecisionSettings(options.rounds, options.decisions, options.seed))
    table = Table("µs a decision", *(f"{count} candidates" for count in COUNTS), box=None)
    table.title = f"median of {options.rounds} rounds' medians (least, most)"
    for situation in Situation:
        of_it = [one for one in timings if one.situation is situation]
        cells = [
            f"{1e6 * one.median_s:.1f} ({1e6 * min(one.rounds_s):.1f}, {1e6 * max(one.rounds_s):.1f})" for one in of_it
        ]
        table.add_row(situation, *cells)
    console.print(table)
    slow = too_slow(timings)
    for one in slow:
        took = f"{1e6 * one.median_s:.1f} µs, not below {1e6 * CEILING_S:.0f}"
        console.print(f"[red]{one.situation}: {one.candidates} candidates take {took}[/]")
    return 1 if slow else 0
