"""The commands of the load tests: `punctual bench ...`. A benchmark is imported when its command runs.

Exit status: 0 success; 1 a missed target, a fault or an invalid run; 2 wrong options.
"""

from __future__ import annotations

import typer

from exporters.options import lazy_group

BENCHMARKS = {
    "speed": "Compares the gateway's speed with FastAPI and the bare engine.",
    "accuracy": "Sends every held-out sentence over HTTP and compares accuracy with the verified one.",
    "clients": "Compares what a stock client is answered with what transformers' pipelines make of the source.",
    "batchmates": "Measures how far a classifier's answers depend on the texts that share its engine run.",
    "load": "Offers open-loop load to a running gateway.",
    "decision": "Measures the time that the gateway takes to choose a checkpoint.",
    "observed": "Compares the counts of a real Prometheus with the client's, under load.",
    "scrape": "Measures the throughput that scraping /metrics every second costs.",
    "engines": "Measures the time per token of each decoding engine.",
    "writing": "Measures what texts that step together gain over one by one, and over transformers.",
    "prefixes": "Measures what is gained where chats begin with the same system message.",
    "sharing": "Compares ways in which texts being decoded can share an engine.",
    "budgets": "Requests summaries with random budgets and measures how many are in time.",
    "coexistence": "Measures a classifier's latency beside a busy summarizer.",
    "slow_clients": "Measures an ordinary client's latency beside a crowd of slow ones.",
    "checkpoints": "Measures time and memory of checkpoints by batch and length, training included.",
    "memory": "Measures whether a summarizer's memory grows over many summaries.",
}
"""What each benchmark does, by the name of its module, whose `command` is the command."""

COMMANDS = {name.replace("_", "-"): (f"loadtests.bench.{name}:command", about) for name, about in BENCHMARKS.items()}
COMMANDS["ceiling"] = (
    "loadtests.generator.command:ceiling",
    "Finds how many requests a second `punctual load` can send on time on this machine.",
)

bench = typer.Typer(cls=lazy_group(COMMANDS), no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@bench.callback()
def about() -> None:
    """Measures against named baselines and promises."""
