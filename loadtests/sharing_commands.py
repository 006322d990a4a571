"""The command `punctual bench sharing`: its options, what it shows and writes, and its exit status.

Light to import, like `commands`: the measurement is imported when it runs. Raises LoadTestError and SourceRefused.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from platformdirs import user_cache_path
from rich.console import Console

from loadtests.arguments import at_least, positive


def sharing_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `punctual bench sharing`."""
    parser.add_argument(
        "--checkpoint",
        default="distilbart-6-6",
        help="distilbart-6-6 or pegasus-large (random weights), starter:NAME or a folder (default: %(default)s)",
    )
    parser.add_argument("--rounds", type=at_least(1), default=5, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=positive, default=30.0, help="of each turn (default: %(default)s)")
    parser.add_argument(
        "--rate",
        type=positive,
        help="short texts a second (default: so many that they alone would keep the engine busy a fifth of the time)",
    )
    parser.add_argument(
        "--longs",
        type=at_least(1),
        action="append",
        help="long texts under way at once; may be given several times (default: 1, and again with 2)",
    )
    parser.add_argument("--seed", type=int, default=29, help="of texts, order and arrivals (default: %(default)s)")
    default = user_cache_path("punctual") / "engines"
    parser.add_argument("--work", type=Path, default=default, help="where graphs are kept (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write every turn there")
    parser.add_argument("--markdown", type=Path, help="write the tables there")


def sharing(options: argparse.Namespace, console: Console) -> int:
    """Measures how long texts and short ones should share an engine; 0 whatever is found, which decides nothing."""
    from loadtests.sharing import SharingSettings, share
    from loadtests.sharing_report import markdown, print_sharing, write_json

    settings = SharingSettings(
        rounds=options.rounds,
        seconds=options.seconds,
        rate=options.rate,
        longs=tuple(dict.fromkeys(options.longs or SharingSettings.longs)),
        seed=options.seed,
    )
    report = share(options.checkpoint, options.work, settings, console)
    print_sharing(report, console)
    if options.json:
        write_json(report, options.json)
    if options.markdown:
        options.markdown.write_text(markdown(report), encoding="utf-8")
    return 0
