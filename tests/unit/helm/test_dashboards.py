"""The dashboards: the committed JSON equals the rendered code, and every panel explains itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm.dashboards.render import FOLDER, boards, rendered, write
from helm.dashboards.words import RUNBOOK

BOARDS: dict[str, dict[str, Any]] = {board.uid: json.loads(rendered(board)) for board in boards()}
PANELS = [(uid, panel) for uid, board in BOARDS.items() for panel in board["panels"] if panel["type"] != "row"]
DRAWN = [(uid, panel) for uid, panel in PANELS if panel["type"] != "text"]
VARIABLE = re.compile(r"\$\{?(\w+)")
GRAFANAS_OWN = {"__rate_interval"}


def by_title(value: object) -> str | None:
    """The title of a panel, as the id of its test."""
    return str(value["title"]) if isinstance(value, dict) else None


def test_the_committed_dashboards_are_those_of_the_code() -> None:
    """The committed dashboards equal those that the code renders."""
    committed = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert committed == {board.uid: rendered(board) for board in boards()}


def test_a_dashboard_that_is_no_more_goes(tmp_path: Path) -> None:
    """Writing the dashboards removes files of dashboards that no longer exist."""
    (tmp_path / "old.json").write_text("{}")
    write(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == set(BOARDS)


@pytest.mark.parametrize("uid", BOARDS)
def test_a_dashboard_leads_to_the_others_and_to_the_runbook(uid: str) -> None:
    """Each dashboard links to the others, keeping time and variables, and to the runbook."""
    board = BOARDS[uid]
    assert board["uid"] == uid and board["tags"] == ["punctual"] and board["description"]
    others, runbook = board["links"]
    assert others["type"] == "dashboards" and others["tags"] == board["tags"]
    assert others["includeVars"] and others["keepTime"] and runbook["url"] == RUNBOOK


@pytest.mark.parametrize(("uid", "panel"), DRAWN, ids=by_title)
def test_a_panel_says_what_it_means_and_in_what_unit(uid: str, panel: dict[str, Any]) -> None:
    """Every panel has a description, a query, a unit and the dashboard's own data source."""
    assert len(panel["description"].split()) >= 5 and panel["targets"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    units = {panel["fieldConfig"]["defaults"].get("unit"), panel.get("options", {}).get("yAxis", {}).get("unit")}
    units |= {
        one["value"] for of in panel["fieldConfig"]["overrides"] for one in of["properties"] if one["id"] == "unit"
    }
    assert units - {None}, uid


@pytest.mark.parametrize(("uid", "panel"), DRAWN, ids=by_title)
def test_a_query_reads_variables_that_there_are(uid: str, panel: dict[str, Any]) -> None:
    """Queries and titles use only variables of their dashboard or Grafana's own."""
    there = {variable["name"] for variable in BOARDS[uid]["templating"]["list"]} | GRAFANAS_OWN
    texts = [target["expr"] for target in panel["targets"]] + [panel["title"]]
    used = {name for text in texts for name in VARIABLE.findall(text)} | {panel.get("repeat", "task")}
    assert used <= there


@pytest.mark.parametrize("uid", BOARDS)
def test_panels_neither_overlap_nor_leave_the_grid(uid: str) -> None:
    """Panels neither overlap nor leave the 24 columns of the grid, and have unique ids."""
    cells: set[tuple[int, int]] = set()
    for panel in BOARDS[uid]["panels"]:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & cells and at["x"] + at["w"] <= 24, panel["title"]
        cells |= own
    numbers = [panel["id"] for panel in BOARDS[uid]["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_every_recorded_series_that_is_drawn_is_recorded() -> None:
    """Every recorded series in a panel is recorded by the rules."""
    groups = yaml.safe_load((FOLDER.parent / "rules" / "recording.yaml").read_text(encoding="utf-8"))["groups"]
    recorded = {rule["record"] for group in groups for rule in group["rules"]}
    texts = [target["expr"] for _, panel in DRAWN for target in panel["targets"]]
    drawn = {name for text in texts for name in re.findall(r"\b\w+:punctual_\w+:\w+", text)}
    assert drawn and drawn <= recorded


def test_the_overview_answers_first_whether_promises_are_kept() -> None:
    """The overview's first figure is attainment, green from 95 % and red below 90 %."""
    first = next(panel for panel in BOARDS["punctual-overview"]["panels"] if panel["type"] == "stat")
    steps = [(step["color"], step["value"]) for step in first["fieldConfig"]["defaults"]["thresholds"]["steps"]]
    assert first["title"] == "Attainment" and steps == [("red", None), ("orange", 0.9), ("green", 0.95)]
