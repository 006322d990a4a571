"""The formats of Prometheus: from metrics to text, and from the texts of many processes to one scrape.

Texts are in the text format, with exemplars as OpenMetrics has them at the end of a line. A scrape has them taken out,
or becomes OpenMetrics, as the client asks.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPEN_METRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as generate_open_metrics
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_HELP = "# HELP "
_EOF = "# EOF\n"
_EXEMPLAR = re.compile(rb" # \{trace_id=[^\n]*")
_COUNTER = re.compile(rb"^# HELP (\S+)_total (.*)\n# TYPE \1_total counter$", re.MULTILINE)


class Reading(NamedTuple):
    """One series of a gauge: the values of its labels, and its own value. A series of None is left out."""

    labels: tuple[str, ...]
    value: float | None


def counter(name: str, about: str, labels: Sequence[str], registry: CollectorRegistry | None = None) -> Counter:
    """Makes a counter `punctual_NAME_total`."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nothing here reads
    return Counter(f"punctual_{name}", about, labels, registry=registry)


def histogram(
    name: str, about: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
) -> Histogram:
    """Makes a histogram `punctual_NAME` with a bucket for each bound."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # as above
    return Histogram(f"punctual_{name}", about, labels, registry=registry, buckets=bounds)


def gauge(name: str, about: str, labels: Sequence[str], readings: Iterable[Reading]) -> Metric:
    """Makes a gauge `punctual_NAME` of values that are read at this scrape."""
    family = GaugeMetricFamily(f"punctual_{name}", about, labels=labels)
    for reading in readings:
        if reading.value is not None:
            family.add_metric(reading.labels, reading.value)
    return family


def total(name: str, about: str, value: float) -> Metric:
    """Makes a counter `punctual_NAME_total` of a value that is read at this scrape."""
    return CounterMetricFamily(f"punctual_{name}", about, value=value)


def text_of(families: Iterable[Metric]) -> str:
    """Writes metrics in the text format, with their exemplars. A metric without series is left out."""
    return "".join([_text_of(family) for family in families if family.samples])


def _text_of(family: Metric) -> str:
    alone = _Collected((family,))
    if any(sample.exemplar for sample in family.samples):  # of histograms alone, which both formats write alike
        opened: bytes = generate_open_metrics(alone)  # type: ignore[no-untyped-call]
        return opened.decode().removesuffix(_EOF)
    return generate_latest(alone).decode()


def formatted(scrape: bytes, *, open_metrics: bool) -> tuple[bytes, str]:
    """The scrape in OpenMetrics, which has exemplars, or in the older text format; and its content type."""
    if not open_metrics:
        return (_EXEMPLAR.sub(b"", scrape) if b" # {trace_id=" in scrape else scrape), CONTENT_TYPE
    named = _COUNTER.sub(rb"# HELP \1 \2\n# TYPE \1 counter", scrape)  # there a counter's name has no suffix
    return named + _EOF.encode(), OPEN_METRICS_TYPE


async def exposition(*collectors: Collector) -> str:
    """Writes the metrics of all collectors, and yields to other work of the event loop between two metrics.

    A metric of seven checkpoints takes about 1 ms to write, and all of an ingress's some 15 ms: longer than a request.
    """
    texts: list[str] = []
    for collector in collectors:
        for family in collector.collect():
            texts.append(text_of((family,)))
            await asyncio.sleep(0)
    return "".join(texts)


@dataclass(frozen=True, slots=True)
class _Collected(Collector):
    families: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.families


@dataclass(frozen=True, slots=True)
class Process:
    """A process that was asked for its metrics; `text` is None if it did not answer in time.

    `replica` is its name, and `deployment` what it belongs to. A deployment with no known process has one without a
    name.
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
    """Merges the texts of all processes: each metric described once, each series with a `replica` label.

    `application` is appended unchanged. `punctual_replica_up` says which processes answered, and `took_s` is how long
    they took, in seconds. Lines are moved and not parsed: the library's parser would block the event loop for some 30
    ms per process.
    """
    blocks: dict[str, _Block] = {}
    asked = tuple(processes)
    for process in asked:
        if process.text:
            _take(blocks, process.text, f'replica="{_escaped(process.replica)}"')
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


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
