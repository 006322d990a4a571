"""The command `punctual bench engines`: its options, what it shows and writes, and its exit status.

Light to import, like `commands`: the race is imported when it runs. Raises LoadTestError and SourceRefused.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from platformdirs import user_cache_path
from rich.console import Console

from loadtests.arguments import at_least


def engines_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `punctual bench engines`."""
    parser.add_argument(
        "--checkpoint",
        action="append",
        help="distilbart-6-6 or pegasus-large (random weights), starter:NAME or a folder; may be given several times "
        "(default: the two with random weights)",
    )
    parser.add_argument(
        "--engine", action="append", help="one to race; may be given several times (default: all that are installed)"
    )
    parser.add_argument("--rounds", type=at_least(1), default=5, help="(default: %(default)s)")
    parser.add_argument("--tokens", type=at_least(2), default=32, help="that are written (default: %(default)s)")
    parser.add_argument(
        "--input-tokens", type=at_least(2), default=512, help="that are read, or what fits (default: %(default)s)"
    )
    parser.add_argument("--threads", type=at_least(1), default=2, help="of each engine (default: %(default)s)")
    parser.add_argument(
        "--apart",
        action="store_true",
        help="load each engine anew for every turn, as is done where memory does not hold them all at once",
    )
    parser.add_argument("--seed", type=int, default=20, help="of the text and the order (default: %(default)s)")
    default = user_cache_path("punctual") / "engines"
    parser.add_argument("--work", type=Path, default=default, help="where graphs are kept (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write every turn there")
    parser.add_argument("--svg", type=Path, help="draw the times of a token there")
    parser.add_argument("--markdown", type=Path, help="write the tables there")


def engines(options: argparse.Namespace, console: Console) -> int:
    """Races the engines at writing, one checkpoint after the other; 0 whatever the verdicts, which decide nothing."""
    from loadtests.decoding_folders import RANDOM
    from loadtests.decoding_race import DecodingSettings, decoding_race
    from loadtests.decoding_report import markdown, print_decoding, write_json, write_svg

    settings = DecodingSettings(
        rounds=options.rounds,
        tokens=options.tokens,
        input_tokens=options.input_tokens,
        threads=options.threads,
        seed=options.seed,
        apart=options.apart,
        engines=tuple(options.engine) if options.engine else None,
    )
    reports = []
    for location in options.checkpoint or RANDOM:
        reports.append(decoding_race(location, options.work, settings, console))
        print_decoding(reports[-1], console)
    if options.json:
        write_json(reports, options.json)
    if options.svg:
        write_svg(reports, options.svg)
    if options.markdown:
        options.markdown.write_text(markdown(reports), encoding="utf-8")
    return 0
