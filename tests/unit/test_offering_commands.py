"""`punctual load` from its options to its files, against a small gateway over real sockets and a real generator."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import fake_summaries
import msgspec
import pytest
from fakes import GRAND, SWIFT
from rich.console import Console
from small_gateway import Asked, SmallGateway, Told, answer, checkpoints, problem

from loadtests.offering.commands import load, load_arguments
from loadtests.offering.figures import LiveResult
from loadtests.offering.histograms import count_of
from loadtests.results.files import read_json

SCENARIO = """
name = "small"
seconds = 0.3
warmup_s = 0.1
seeds = [1, 2, 3]

[catalog]
manifests = "starter"

[arrivals]
rate_per_s = 200.0

[[requests]]
budget_ms = [1000, 2000]
mode = "strict"

[[requests]]
budget_ms = [1000, 2000]
"""


def behave(asked: Asked) -> Told:
    """Refuses one strict request in three, answers the rest by the pin, or else by swift."""
    if asked.path == "/checkpoints":
        return Told(body=checkpoints(fake_summaries.catalog(), fake_summaries.manifests()))
    if asked.headers["x-sla-mode"] == "strict" and len(asked.body) % 3 == 0:
        return problem(429, "overloaded")
    checkpoint = asked.headers.get("x-checkpoint", SWIFT)
    return answer(checkpoint, X_Predicted_Latency_Ms="5", X_Forecast_Quantile_Ms="90", Server_Timing="total;dur=1")


def options(scenario: Path, *arguments: str) -> argparse.Namespace:
    """As the command line gives them."""
    parser = argparse.ArgumentParser()
    load_arguments(parser)
    return parser.parse_args([str(scenario), *arguments])


def test_a_scenario_is_offered_counted_shown_and_written(tmp_path: Path) -> None:
    """Two policies in turns; every counted request is a sample; every histogram holds its run's answers."""
    scenario, gateway, shown = tmp_path / "small.toml", SmallGateway(behave), io.StringIO()
    scenario.write_text(SCENARIO)
    out, samples = tmp_path / "runs.json", tmp_path / "samples.jsonl"
    with gateway.elsewhere() as url:
        given = ("--statics", "--shadow", "--shadow-share", "1", "--seeds", "1", "2")
        files = ("--json", str(out), "--samples", str(samples))
        status = load(options(scenario, "--url", url + "/", *given, *files), Console(file=shown, width=200))
    runs = msgspec.json.decode(out.read_bytes(), type=tuple[LiveResult, ...])
    assert {(run.policy, run.seed) for run in runs} == {
        (policy, seed) for policy in ("gateway", f"static:{GRAND}", f"static:{SWIFT}", "static:even") for seed in (1, 2)
    }
    assert status == (0 if all(run.valid for run in runs) else 1)
    lines = [json.loads(line) for line in samples.read_bytes().splitlines()]
    assert len(lines) == sum(run.offered for run in runs) and all(line["due_s"] >= 0.1 for line in lines)
    for run in runs:
        assert run.served + run.late + run.refused + run.failed == run.offered and run.refused > 0
        assert count_of(run.histograms["answered"]) == run.served + run.late
        assert run.refusals is not None and run.coverage_at_gateway == 1.0
        assert run.shadows is not None and run.shadows.sent == run.refused
        by = {"gateway": SWIFT}.get(run.policy, run.policy.removeprefix("static:"))
        assert set(run.by_variant) == {by}
    assert [run.offered for run in read_json(out)] == [run.offered for run in runs]
    assert "Forecasts, refusals and the generator" in shown.getvalue()
    shadows = sum(run.shadows.sent for run in runs if run.shadows)
    calls = sum(asked.path == "/classify" for asked in gateway.asked)
    assert calls >= len(lines) + shadows


def test_a_page_is_drawn_of_a_pinned_run(tmp_path: Path) -> None:
    """Of what the pin is called, at every load."""
    scenario, page = tmp_path / "small.toml", tmp_path / "runs.html"
    scenario.write_text(SCENARIO.replace("rate_per_s = 200.0", "") + "\n[node]\ncores = 8\n")
    with SmallGateway(behave).elsewhere() as url:
        given = ("--url", url, "--pin", SWIFT, "--seeds", "1", "--loads", "1", "2", "--html", str(page))
        load(options(scenario, *given), Console(file=io.StringIO()))
    assert f"static:{SWIFT}" in page.read_text()


def test_a_gateway_that_only_fails_is_a_status_of_one(tmp_path: Path) -> None:
    """And says which runs are not valid, and why."""
    scenario, shown = tmp_path / "small.toml", io.StringIO()
    scenario.write_text(SCENARIO)

    def fail(asked: Asked) -> Told:
        return behave(asked) if asked.path == "/checkpoints" else problem(500, "inference_failed")

    with SmallGateway(fail).elsewhere() as url:
        status = load(options(scenario, "--url", url, "--seeds", "1"), Console(file=shown, width=200))
    assert status == 1 and "NOT VALID" in shown.getvalue() and "500 inference_failed" in shown.getvalue()


@pytest.mark.parametrize(
    "wrong",
    [("--shadow-share", "1.5"), ("--loads", "0"), ("--at", "-1"), ("--mode", "lax"), ("--json", "nowhere/at/all.json")],
)
def test_an_option_that_cannot_be_is_refused(wrong: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """With the usual exit status of a wrong call."""
    with pytest.raises(SystemExit, match="2"):
        options(Path("x"), *wrong)
    assert wrong[0] in capsys.readouterr().err
