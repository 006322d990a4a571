"""The commands of the load tests: `punctual bench ...`. A benchmark is imported when its command runs.

Exit status: 0 as promised; 1 a target missed, a fault found, or a run that is not valid; 2 called wrongly.
"""

from __future__ import annotations

import typer

from exporters.options import lazy_group

BENCHMARKS = {
    "speed": "Races the gateway against FastAPI and the bare engine.",
    "accuracy": "Sends every held-out sentence over HTTP and compares the labels with what was verified.",
    "load": "Offers open-loop load to a gateway that runs.",
    "decision": "Measures how long the gateway takes to decide.",
    "observed": "Has a real Prometheus watch a gateway under load, and compares its counts with the client's.",
    "scrape": "Measures what a scrape of /metrics each second costs the request path.",
    "engines": "Measures what a token costs in each engine.",
    "sharing": "Measures how texts that are written step by step should share an engine.",
    "budgets": "Sends summaries under drawn budgets and measures how they keep them.",
    "coexistence": "Measures a classifier's latency beside a busy summarizer.",
    "memory": "Measures whether a replica's memory grows over many summaries.",
}
"""What each benchmark does, by the name of its module, whose `command` is the command."""

COMMANDS = {name: (f"loadtests.bench.{name}:command", about) for name, about in BENCHMARKS.items()}
COMMANDS["ceiling"] = (
    "loadtests.generator.command:ceiling",
    "Finds how many requests a second `punctual load` can offer here and still keep its own times.",
)

bench = typer.Typer(cls=lazy_group(COMMANDS), no_args_is_help=True, add_completion=False)


@bench.callback()
def about() -> None:
    """Measures against named baselines and promises."""
