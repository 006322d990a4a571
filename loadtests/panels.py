"""What the shipped dashboards ask of a Prometheus: every query of every panel, its variables filled in.

It reads rendered JSON and knows neither who made it nor who answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from loadtests.children import ROOT
from loadtests.observing_errors import NothingShipped

SHIPPED_DASHBOARDS = ROOT / "helm" / "punctual" / "dashboards"

EVERYTHING: Mapping[str, str] = {
    "task": ".*",
    "tier": ".*",
    "checkpoint": ".*",
    "window": "5m",
    "__rate_interval": "10s",
}
"""The variables as a dashboard has them where nobody chose, over scrapes of one second."""

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::\w+)?\})")


@dataclass(frozen=True)
class Query:
    """One query, and where it stands."""

    where: str
    expr: str


class _Target(Struct):
    expr: str
    ref_id: str = msgspec.field(name="refId", default="")


class _Panel(Struct):
    title: str = ""
    targets: tuple[_Target, ...] = ()
    panels: tuple[_Panel, ...] = ()


class _Dashboard(Struct):
    panels: tuple[_Panel, ...]


def panel_queries(folder: Path = SHIPPED_DASHBOARDS, values: Mapping[str, str] = EVERYTHING) -> list[Query]:
    """Those of all dashboards of a folder, in folded rows too. Raises NothingShipped, for an unknown variable too."""
    found: list[Query] = []
    for path in sorted(folder.glob("*.json")):
        try:
            dashboard = msgspec.json.decode(path.read_bytes(), type=_Dashboard)
            found += (Query(f"{path.stem}: {where}", filled_in(expr, values)) for where, expr in _asked(dashboard))
        except (msgspec.DecodeError, KeyError) as error:
            raise NothingShipped(f"{path}: not a dashboard whose queries can be asked: {error}") from None
    if not found:
        raise NothingShipped(f"{folder}: it holds no dashboard that asks anything")
    return found


def filled_in(expr: str, values: Mapping[str, str]) -> str:
    """The query with every `$name` and `${name}` replaced. Raises KeyError for one that has no value."""
    return _VARIABLE.sub(lambda match: values[match[1] or match[2]], expr)


def _asked(holder: _Dashboard | _Panel) -> Iterator[tuple[str, str]]:
    for panel in holder.panels:
        yield from ((f"{panel.title} {target.ref_id}".strip(), target.expr) for target in panel.targets)
        yield from _asked(panel)
