"""What the servers of a race answer, seen one request at a time: that all say the same, and who the gateway chose.

Plain blocking HTTP by the standard library: nothing here is timed.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from deployments.replica.classify import open_classifier
from gateway.catalogs.catalog import CatalogEntry
from gateway.tasks.classify import LabelScore
from loadtests.contestants import ServerContestant
from loadtests.errors import OtherAnswers
from loadtests.peers.engine import answer
from loadtests.sentences import classify_body

COMPARED = 40
SLACK = 1e-3
BELOW = 0.9
_COUNT = re.compile(r"punctual_requests_total\{(?P<labels>[^}]*)\} (?P<value>[0-9.e+]+)")
_CHECKPOINT = re.compile(r'checkpoint="(?P<name>[^"]*)"')


def check_same_answers(servers: Sequence[ServerContestant], variant: Path, texts: Sequence[str]) -> None:
    """Every server gives the variant's own answer to the first sentences, label for label. Raises OtherAnswers.

    Each is asked alone, so no batch-mate can change a score.
    """
    opened = open_classifier(variant, threads=1)
    for text in texts[:COMPARED]:
        meant = {score.label: score.score for score in answer(opened, text)}
        for server in servers:
            got = _ask(server.url, server.headers, text)
            if got.keys() != meant.keys() or any(abs(got[label] - meant[label]) > SLACK for label in meant):
                raise OtherAnswers(f"{server.name} answers {got} to {text!r}, and the variant itself {meant}")


def choosing_budget_ms(url: str, entry: CatalogEntry, text: str) -> float | None:
    """A budget under which only this checkpoint fits on an idle gateway, or None where it is not the fastest.

    A little under the forecast of the next faster one at the gateway's percentile, as `/route` gives it.
    """
    body = json.dumps({"task": entry.task, "inputs": text}).encode()
    candidates = json.loads(_post(f"{url}/route", {}, body))["candidates"]
    forecast = {c["checkpoint"]: c["forecast_ms"]["at_percentile_idle"] for c in candidates if c["forecast_ms"]}
    others = [ms for name, ms in forecast.items() if name != entry.name]
    if entry.name not in forecast or not others or min(others) * BELOW <= forecast[entry.name]:
        return None
    return float(min(others) * BELOW)


def decided(url: str) -> dict[str, float]:
    """How many requests the gateway has given to each checkpoint so far, by its own metrics."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as scrape:  # the scheme is ours
        return counted(scrape.read().decode())


def counted(exposition: str) -> dict[str, float]:
    """The requests of each checkpoint in a Prometheus text, all outcomes and processes together."""
    found: dict[str, float] = {}
    for line in _COUNT.finditer(exposition):
        if name := _CHECKPOINT.search(line["labels"]):
            found[name["name"]] = found.get(name["name"], 0.0) + float(line["value"])
    return found


def elsewhere(before: Mapping[str, float], after: Mapping[str, float], checkpoint: str) -> float:
    """How many requests between two counts were given to another checkpoint than this one, or to none."""
    return sum(count - before.get(name, 0.0) for name, count in after.items() if name != checkpoint)


def _ask(url: str, headers: Mapping[str, str], text: str) -> dict[str, float]:
    content = _post(f"{url}/classify", headers, classify_body(text))
    return {score.label: score.score for score in msgspec.json.decode(content, type=list[list[LabelScore]])[0]}


def _post(url: str, headers: Mapping[str, str], body: bytes) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=30) as response:  # the scheme is ours
        content: bytes = response.read()
        return content
