"""A real Prometheus beside a gateway: started on loopback with the chart's own rules, asked over HTTP, ended by handle.

It knows the config that is shipped for it, and no dashboard. Instants are Unix seconds, as Prometheus keeps them.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
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

from loadtests.children import ROOT
from loadtests.observing_errors import NothingShipped, PrometheusFailed, PrometheusMissing
from loadtests.processes import LOG_END, free_port

SHIPPED_CONFIG = ROOT / "helm" / "observe" / "prometheus.yml"
ANSWER_WITHIN_S = 20.0
READY_WITHIN_S = 60.0
STOP_WITHIN_S = 20.0
LOOK_EVERY_S = 0.1
LONG_AGO = float("-inf")

SCRAPED, RECORDED = "punctual_build_info", "task:punctual_attainment:ratio_rate5m"
"""A series that every scrape brings, and one that the rules record wherever anything was offered."""

SCRAPE_SETTLES_S = 1.0
"""How long after a scrape's beginning all of it is surely stored."""


class Sample(Struct, frozen=True):
    """One element of an answer: its labels, and an instant with a value."""

    value: tuple[float, str]
    metric: dict[str, str] = {}

    @property
    def number(self) -> float:
        """The value; NaN is one."""
        return float(self.value[1])


class Rule(Struct, frozen=True, rename="camel"):
    """One rule that a Prometheus works by, and how it fares."""

    name: str
    type: Literal["recording", "alerting"]
    health: str
    last_error: str = ""


class _Vector(Struct, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Asked(Struct):
    data: _Vector


class _Group(Struct):
    rules: list[Rule]


class _Groups(Struct):
    groups: list[_Group]


class _Ruled(Struct):
    data: _Groups


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus, asked by its HTTP API."""

    url: str

    def ask(self, expr: str, at_s: float) -> list[Sample]:
        """The elements of an expression's value at an instant; of a number, one. Raises PrometheusFailed."""
        data = msgspec.json.decode(self._get("query", query=expr, time=f"{at_s:.3f}"), type=_Asked).data
        if data.result_type == "scalar":
            return [Sample(msgspec.json.decode(data.result, type=tuple[float, str]))]
        return msgspec.json.decode(data.result, type=list[Sample])

    def rules(self) -> list[Rule]:
        """Every rule that it works by. Raises PrometheusFailed."""
        return [
            rule for group in msgspec.json.decode(self._get("rules"), type=_Ruled).data.groups for rule in group.rules
        ]

    def await_sample(self, series: str, after_s: float, within_s: float = READY_WITHIN_S) -> None:
        """Waits until a series, scraped or recorded, has a sample of after that instant. Raises PrometheusFailed."""
        until = perf_counter() + within_s
        while max((one.number for one in self.ask(f"timestamp({series})", now_s())), default=LONG_AGO) <= after_s:
            if perf_counter() > until:
                raise PrometheusFailed(f"Prometheus did not get a new sample of {series} within {within_s:g} s")
            threading.Event().wait(LOOK_EVERY_S)

    def await_settled(self) -> None:
        """Waits until what is true now has been scraped, and the rules have been evaluated on that.

        Raises PrometheusFailed.
        """
        self.await_sample(SCRAPED, now_s())
        self.await_sample(RECORDED, now_s() + SCRAPE_SETTLES_S)

    def _get(self, what: str, **parameters: str) -> bytes:
        try:
            with urlopen(f"{self.url}/api/v1/{what}?{urlencode(parameters)}", timeout=ANSWER_WITHIN_S) as answer:
                content: bytes = answer.read()
        except HTTPError as error:
            said = error.read().decode(errors="replace")
            raise PrometheusFailed(f"Prometheus refused {parameters.get('query', what)}: {said}") from None
        except (OSError, HTTPException) as error:
            raise PrometheusFailed(f"Prometheus does not answer: {error}") from None
        return content


@contextmanager
def watching(gateway_url: str, every_s: int = 1) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the gateway and evaluates the chart's rules so often; gone with its data afterwards.

    It is yielded once it has scraped. Raises PrometheusMissing, PrometheusFailed and NothingShipped.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise PrometheusMissing(
            "Prometheus is not installed: `apt-get install prometheus`, or from https://prometheus.io"
        )
    with tempfile.TemporaryDirectory(prefix="loadtests-") as folder:
        config, address = Path(folder, "prometheus.yml"), f"127.0.0.1:{free_port()}"
        target = gateway_url.removeprefix("http://")
        config.write_text(yaml.safe_dump(config_of(SHIPPED_CONFIG, target, every_s)), encoding="utf-8")
        arguments = (f"--config.file={config}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}")
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen([program, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                prometheus = Prometheus(f"http://{address}")
                if not _ready(process, prometheus):
                    log.seek(0)
                    said = log.read().decode(errors="replace").strip()[-LOG_END:]
                    raise PrometheusFailed(f"Prometheus did not become ready: {said}")
                prometheus.await_sample(SCRAPED, LONG_AGO)
                yield prometheus
            finally:
                _stop(process)


def config_of(shipped: Path, target: str, every_s: int) -> dict[str, Any]:
    """The shipped config, of this target and so often; its rule files as they are seen from anywhere.

    Raises NothingShipped.
    """
    try:
        config: dict[str, Any] = yaml.safe_load(shipped.read_text(encoding="utf-8"))
        (job,) = config["scrape_configs"]
        rules = [str(shipped.parent / pattern) for pattern in config["rule_files"]]
    except (OSError, KeyError, ValueError, yaml.YAMLError) as error:
        raise NothingShipped(f"{shipped}: not a config of one job and rules: {error}") from None
    often = f"{every_s}s"
    job |= {"scrape_timeout": often, "static_configs": [{"targets": [target]}]}
    return config | {"global": {"scrape_interval": often, "evaluation_interval": often}, "rule_files": rules}


def now_s() -> float:
    """The date as Prometheus keeps it."""
    return datetime.now(UTC).timestamp()


def _ready(process: subprocess.Popen[bytes], prometheus: Prometheus) -> bool:
    until = perf_counter() + READY_WITHIN_S
    while process.poll() is None and perf_counter() < until:
        try:
            with urlopen(f"{prometheus.url}/-/ready", timeout=2):  # the scheme is ours
                return True
        except (OSError, HTTPException):
            threading.Event().wait(LOOK_EVERY_S)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
