"""How the texts of many processes become one scrape: each line told whose it is, each metric described once.

Lines are moved, not read: to parse and to write them anew would hold the event loop up for some 30 ms a process.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from gateway.metrics.gauges import Reading, gauge, text_of
from gateway.metrics.series import escaped

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_HELP = "# HELP "


@dataclass(frozen=True, slots=True)
class Process:
    """A process that was asked, with its metrics in the text format; None where it did not answer in time.

    `replica` is its name and `deployment` what it is one of; a deployment of which nobody is known has one, unnamed.
    """

    replica: str
    deployment: str
    text: str | None


@dataclass(slots=True)
class _Block:
    """One metric: the lines that describe it, and those of its series."""

    described: str
    lines: list[str] = field(default_factory=list)


def one_scrape(processes: Iterable[Process], application: str = "", took_s: float | None = None) -> bytes:
    """One exposition of them all, each series with a `replica` label; `application` is added as it is.

    `punctual_replica_up` tells who answered; `took_s` is how long it was that they were asked.
    """
    blocks: dict[str, _Block] = {}
    asked = tuple(processes)
    for process in asked:
        if process.text:
            _take(blocks, process.text, f'replica="{escaped(process.replica)}"')
    merged = "".join([block.described + "\n".join(block.lines) + "\n" for block in blocks.values()])
    up = (Reading((one.replica, one.deployment), one.text is not None) for one in asked)
    own = text_of(
        (
            gauge("replica_up", "Whether the process answered this scrape in time.", ("replica", "deployment"), up),
            gauge("scrape_duration_seconds", "How long the processes took to answer.", (), [Reading((), took_s)]),
        )
    )
    return (merged + application + own).encode()


def _take(blocks: dict[str, _Block], text: str, label: str) -> None:
    for part in text.removeprefix(_HELP).split(f"\n{_HELP}"):
        about, kind, *lines = part.rstrip("\n").split("\n")
        block = blocks.setdefault(about.partition(" ")[0], _Block(f"{_HELP}{about}\n{kind}\n"))
        block.lines += [_labelled(line, label) for line in lines]


def _labelled(line: str, label: str) -> str:
    if "{" in line:
        return line.replace("{", f"{{{label},", 1)
    name, _, value = line.partition(" ")
    return f"{name}{{{label}}} {value}"
