"""Runs a real Prometheus on loopback with the shipped config and rules, and queries it as the dashboards do.

Instants are Unix seconds, as in Prometheus.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from time import perf_counter
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import msgspec
import yaml
from msgspec import Struct

from loadtests.bench.peers.servers import LOOK_EVERY_S, ROOT, free_port, started
from loadtests.errors import NothingShipped, PrometheusFailed, PrometheusMissing

SHIPPED_CONFIG = ROOT / "helm" / "observe" / "prometheus.yml"
SHIPPED_DASHBOARDS = ROOT / "helm" / "punctual" / "dashboards"
ANSWER_WITHIN_S = 20.0
READY_WITHIN_S = 60.0
LONG_AGO = float("-inf")

SCRAPED, RECORDED = "punctual_build_info", "task:punctual_attainment:ratio_rate5m"
"""A series in every scrape, and one that the rules record once a request was offered."""

SCRAPE_SETTLES_S = 1.0
"""The time from a scrape's start until all its samples are stored."""

EVERYTHING: Mapping[str, str] = {
    "instance": ".*",
    "task": ".*",
    "tier": ".*",
    "checkpoint": ".*",
    "window": "5m",
    "__rate_interval": "10s",
}
"""A dashboard's default variables, for a scrape interval of one second."""

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::\w+)?\})")


class Sample(Struct, frozen=True):
    """One element of a query result: its labels, and an instant with a value."""

    value: tuple[float, str]
    metric: dict[str, str] = {}

    @property
    def number(self) -> float:
        """The value as a float, possibly NaN."""
        return float(self.value[1])


class Rule(Struct, frozen=True, rename="camel"):
    """One rule loaded by Prometheus, and its health."""

    name: str
    type: Literal["recording", "alerting"]
    health: str
    last_error: str = ""


@dataclass(frozen=True)
class Prometheus:
    """Client of a running Prometheus's HTTP API."""

    url: str

    def ask(self, expr: str, at_s: float) -> list[Sample]:
        """The result of an expression at an instant; a scalar gives one element. Raises PrometheusFailed."""
        data = self._get("query", query=expr, time=f"{at_s:.3f}")
        found = [{"value": data["result"]}] if data["resultType"] == "scalar" else data["result"]
        return msgspec.convert(found, list[Sample])

    def rules(self) -> list[Rule]:
        """All loaded rules. Raises PrometheusFailed."""
        return [msgspec.convert(rule, Rule) for group in self._get("rules")["groups"] for rule in group["rules"]]

    def await_sample(self, series: str, after_s: float, within_s: float = READY_WITHIN_S) -> None:
        """Waits until a scraped or recorded series has a sample later than `after_s`. Raises PrometheusFailed."""
        until = perf_counter() + within_s
        while max((one.number for one in self.ask(f"timestamp({series})", now_s())), default=LONG_AGO) <= after_s:
            if perf_counter() > until:
                raise PrometheusFailed(f"Prometheus has no new sample of {series} after {within_s:g} s")
            threading.Event().wait(LOOK_EVERY_S)

    def await_settled(self) -> None:
        """Waits until the present state has been scraped and the rules evaluated on it. Raises PrometheusFailed."""
        self.await_sample(SCRAPED, now_s())
        self.await_sample(RECORDED, now_s() + SCRAPE_SETTLES_S)

    def _get(self, what: str, **parameters: str) -> Any:
        try:
            with urlopen(f"{self.url}/api/v1/{what}?{urlencode(parameters)}", timeout=ANSWER_WITHIN_S) as answer:
                return json.loads(answer.read())["data"]
        except HTTPError as error:
            detail = error.read().decode(errors="replace")
            raise PrometheusFailed(f"Prometheus refused {parameters.get('query', what)}: {detail}") from None
        except (OSError, HTTPException) as error:
            raise PrometheusFailed(f"Prometheus does not answer: {error}") from None


@contextmanager
def watching(gateway_url: str, every_s: int = 1) -> Iterator[Prometheus]:
    """Runs a Prometheus that scrapes the gateway and evaluates the chart's rules every `every_s` seconds.

    Yields it after its first scrape and deletes its data at the end. Raises PrometheusMissing, PrometheusFailed and
    NothingShipped.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise PrometheusMissing(
            "Prometheus is not installed: `apt-get install prometheus`, or see https://prometheus.io"
        )
    with tempfile.TemporaryDirectory(prefix="loadtests-") as folder:
        config, address = Path(folder, "prometheus.yml"), f"127.0.0.1:{free_port()}"
        target = gateway_url.removeprefix("http://")
        config.write_text(yaml.safe_dump(config_of(SHIPPED_CONFIG, target, every_s)), encoding="utf-8")
        arguments = (f"--config.file={config}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}")
        url = f"http://{address}"
        with started("Prometheus", [program, *arguments], url, "/-/ready", PrometheusFailed, READY_WITHIN_S):
            prometheus = Prometheus(url)
            prometheus.await_sample(SCRAPED, LONG_AGO)
            yield prometheus


def config_of(shipped: Path, target: str, every_s: int) -> dict[str, Any]:
    """The shipped config with one target, this scrape interval, and absolute paths of the rule files.

    Raises NothingShipped.
    """
    try:
        config: dict[str, Any] = yaml.safe_load(shipped.read_text(encoding="utf-8"))
        (job,) = config["scrape_configs"]
        rules = [str(shipped.parent / pattern) for pattern in config["rule_files"]]
    except (OSError, KeyError, ValueError, yaml.YAMLError) as error:
        raise NothingShipped(f"{shipped}: not a config with one job and rule files: {error}") from None
    interval = f"{every_s}s"
    job |= {"scrape_timeout": interval, "static_configs": [{"targets": [target]}]}
    return config | {"global": {"scrape_interval": interval, "evaluation_interval": interval}, "rule_files": rules}


def now_s() -> float:
    """The present time in Unix seconds."""
    return datetime.now(UTC).timestamp()


@dataclass(frozen=True)
class Query:
    """One dashboard query, and the name of its dashboard and panel."""

    where: str
    expr: str


def panel_queries(folder: Path = SHIPPED_DASHBOARDS, values: Mapping[str, str] = EVERYTHING) -> list[Query]:
    """All queries of a folder's dashboards, collapsed rows included, with `$name` and `${name}` substituted.

    Raises NothingShipped, also for a variable without a value.
    """
    found: list[Query] = []
    for path in sorted(folder.glob("*.json")):
        try:
            for where, expr in _queries_in(json.loads(path.read_bytes())["panels"]):
                filled_in = _VARIABLE.sub(lambda match: values[match[1] or match[2]], expr)
                found.append(Query(f"{path.stem}: {where}", filled_in))
        except (ValueError, KeyError, TypeError) as error:
            raise NothingShipped(f"{path}: the dashboard's queries cannot be read: {error}") from None
    if not found:
        raise NothingShipped(f"{folder}: no dashboard with a query")
    return found


def _queries_in(panels: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for panel in panels:
        for target in panel.get("targets", ()):
            yield f"{panel.get('title', '')} {target.get('refId', '')}".strip(), target["expr"]
        yield from _queries_in(panel.get("panels", ()))
