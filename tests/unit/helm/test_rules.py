"""Prometheus' rules: valid, named by convention, and each alert tested with promtool."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from programs import program

from helm.dashboards.words import OBJECTIVE, RUNBOOK

HELM = Path(__file__).resolve().parents[3] / "helm"
RULES = sorted((HELM / "punctual" / "rules").glob("*.yaml"))
TESTS = sorted((HELM / "rules-tests").glob("*.yaml"))
RECORDED = re.compile(r"(global|task|tier|checkpoint):punctual_[a-z0-9_]+:[a-z0-9_]+")


def groups() -> list[dict[str, Any]]:
    """Every group of rules, of all files."""
    return [group for path in RULES for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]


def rules(kind: str) -> list[dict[str, Any]]:
    """Every rule of this kind: `record` or `alert`."""
    return [rule for group in groups() for rule in group["rules"] if kind in rule]


def promtool(*arguments: str | Path) -> str:
    """The output of promtool; a failure of promtool fails the test."""
    ran = subprocess.run([program("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_prometheus_takes_the_rules_and_the_config_beside_them() -> None:
    """`promtool check` accepts the config of `make observe` and finds all rules through it."""
    found = promtool("check", "config", HELM / "observe" / "prometheus.yml")
    count = len(rules("record")) + len(rules("alert"))
    assert sum(map(int, re.findall(r"(\d+) rules found", found))) == count > 40


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_rules_do_as_their_tests_say(path: Path) -> None:
    """Alerts fire only when they should, and recorded figures match known requests, by promtool's tests."""
    promtool("test", "rules", path)


def test_every_alert_is_fired_and_spared() -> None:
    """Every alert has a test in which it fires and one in which it does not."""
    cases = [
        case
        for path in TESTS
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
        for case in test.get("alert_rule_test", ())
    ]
    names = {rule["alert"] for rule in rules("alert")}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    spared = {case["alertname"] for case in cases if not case["exp_alerts"]}
    beside = {  # in the test where they fire, other checkpoints are spared: promtool compares whole lists
        "PunctualEngineFails",
    }
    assert spared | beside == names


@pytest.mark.parametrize("rule", rules("alert"), ids=lambda rule: rule["alert"])
def test_an_alert_says_who_wakes_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    """Every alert has a duration, a severity, a summary, a description, and its own section of the runbook."""
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["runbook_url"] == f"{RUNBOOK}#{rule['alert'].lower()}"
    assert rule["annotations"]["summary"] and rule["annotations"]["description"]


def test_the_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    """The runbook has exactly one section for each alert."""
    runbook = (HELM.parent / "docs" / "operating.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^### (Punctual\w+)$", runbook, re.M)) == {rule["alert"] for rule in rules("alert")}


def test_names_say_level_metric_and_operations() -> None:
    """Recorded series follow Prometheus' naming convention, and a window in a name is that of its expression."""
    for rule in rules("record"):
        assert RECORDED.fullmatch(rule["record"])
        window = re.search(r"rate(\d+[mhd])$", rule["record"])
        windows = set(re.findall(r"\[(\w+)\]", rule["expr"]) + re.findall(r":\w*rate(\d+[mhd])\b(?!\[)", rule["expr"]))
        if window and "avg_over_time" not in rule["expr"]:
            assert windows == {window[1]}, rule["record"]


def test_groups_bear_names_of_their_own() -> None:
    """Groups of rules have unique names, so that all may stand in one PrometheusRule."""
    names = [group["name"] for group in groups()]
    assert len(set(names)) == len(names)


def test_rules_read_only_what_is_recorded() -> None:
    """Rules read only series that some rule records."""
    names = {rule["record"] for rule in rules("record")}
    read = {match[0] for rule in rules("record") + rules("alert") for match in RECORDED.finditer(rule["expr"])}
    assert read <= names


def test_the_objective_is_one_value() -> None:
    """Alerts and dashboards use one attainment objective."""
    objective = next(rule for rule in rules("record") if rule["record"] == "global:punctual_attainment_objective:ratio")
    assert objective["expr"] == f"vector({OBJECTIVE})"
    burning = [rule["expr"] for rule in rules("alert") if "Burns" in rule["alert"]]
    assert all(expr.count("global:punctual_attainment_objective:ratio") == 4 for expr in burning) and len(burning) == 2
