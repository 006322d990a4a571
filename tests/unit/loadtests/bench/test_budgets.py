"""Budgets: steps matched by request id, promises kept or missed, and how each summarizer used its budgets."""

from __future__ import annotations

import io
import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from deployments.replica.writing.step_log import VARIABLE, Entry, Step
from gateway.model.messages import FinishReason
from loadtests.bench import budgets as figures
from loadtests.bench.budgets import Run, Scored, Settings, logging_steps, report_of, scored
from loadtests.bench.measuring.report import present
from loadtests.bench.summaries import Asked, HeldoutText, Kind, Summarised, Unsummarised

EARLY = Step(-0.5, -0.1)


def text(kind: Kind = Kind.PAPERS, reference: str = "one two three") -> HeldoutText:
    """A text with a secret that no report may show."""
    return HeldoutText(kind, "the secret text", reference)


def summarised(
    written: str = "one two three", checkpoint: str = "picks", reason: FinishReason = "stop", beams: int = 1
) -> Summarised:
    """An answer to which the engine contributed half a second."""
    return Summarised(written, checkpoint, reason, beams, 1, lead=False, service_time_s=0.5, gateway_s=0.75)


def end(
    budget_s: float = 1.0,
    latency_s: float = 0.8,
    outcome: Summarised | Unsummarised | None = None,
    kind: Kind = Kind.PAPERS,
    steps: tuple[Step, ...] | None = (EARLY,),
    rouge_l: float | None = None,
) -> Scored:
    """One request that ended."""
    asked = Asked(f"{budget_s}-{latency_s}", text(kind), budget_s)
    return Scored(asked, outcome or summarised(), latency_s, steps, rouge_l)


def run(*ended: Scored) -> Run:
    """A run of these requests, over two summarizers."""
    return Run(Settings(texts=len(ended)), "a host", ("picks", "writes"), ended, 1.0)


def test_steps_are_matched_by_the_requests_id() -> None:
    """Steps are matched to requests by id, over several tries; a request that no log names has None, not no steps."""
    pytest.importorskip("rouge_score")
    entries = [Entry("1.0-0.8", (EARLY,), False), Entry("other", (), False), Entry("1.0-0.8", (EARLY,), True)]
    twice, unnamed = scored([end(steps=None), end(2.0, steps=None)], entries)
    assert twice.steps == (EARLY, EARLY) and unnamed.steps is None
    assert scored([end()], [Entry("1.0-0.8", (), False)])[0].steps == ()


def test_answers_are_scored_against_their_references() -> None:
    """Answers are scored from 0 to 1 against their references; an unanswered request has no score."""
    pytest.importorskip("rouge_score")
    same, apart, none = scored([end(), end(outcome=summarised("nothing alike")), end(outcome=Unsummarised("x"))], [])
    assert (same.rouge_l, apart.rouge_l, none.rouge_l) == (1.0, 0.0, None)


def test_the_log_of_steps_is_on_for_what_starts_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of steps is switched on for processes started within the context, and restored afterwards."""
    monkeypatch.delenv(VARIABLE, raising=False)
    with logging_steps(tmp_path):
        assert os.environ[VARIABLE] == str(tmp_path)
    assert VARIABLE not in os.environ
    monkeypatch.setenv(VARIABLE, "mine")
    with logging_steps(tmp_path):
        pass
    assert os.environ[VARIABLE] == "mine"


def kept(*ended: Scored) -> list[bool]:
    """Whether each of the three promises is kept by a run of these requests."""
    return [promise.met for promise in figures.promises(ended)]


def test_promises_are_in_time_not_empty_and_punctual() -> None:
    """Promises allow 1 % late or missing answers, no empty answer, and no step that starts after the deadline."""
    good = [end()] * 99
    assert kept(*good, end(latency_s=1.2)) == [True, True, True]
    assert kept(*good[:98], end(latency_s=1.2), end(latency_s=1.2)) == [False, True, True]
    assert kept(*good[:98], *[end(outcome=Unsummarised("x"), steps=None)] * 2) == [False, True, True]
    assert kept(*good, end(outcome=summarised(" \n"))) == [True, False, True]
    assert kept(*good, end(steps=(EARLY, Step(0.01, 0.2)))) == [True, True, False]
    assert kept(*good, end(steps=(Step(-0.01, 0.2),))) == [True, True, True], "it began before the deadline"
    assert kept() == [False, False, False]


def test_punctuality_that_no_log_proves_is_not_kept() -> None:
    """Punctuality is not kept if an answer's steps are missing from the log."""
    assert kept(end(), end(steps=None)) == [True, True, False]
    assert "1 answers were not logged" in figures.promises([end(), end(steps=None)])[2].sentence
    assert kept(end(steps=())) == [True, True, False]


def test_overshoots_are_signed() -> None:
    """An overshoot is negative if all ended before the deadline, and None if there is nothing."""
    assert figures.longest_overshoot_s([end(), end(latency_s=0.9)]) == pytest.approx(-0.1)
    assert figures.longest_overshoot_s([end(latency_s=1.25), end(outcome=Unsummarised("x"), latency_s=40)]) == 0.25
    assert figures.longest_step_overshoot_s([end(), end(steps=(Step(-0.1, 0.03),))]) == 0.03
    assert figures.longest_overshoot_s([]) is figures.longest_step_overshoot_s([end(steps=None)]) is None


def several() -> Sequence[Scored]:
    """Two answers by one checkpoint, three by the other of which one is late, and one request without an answer."""
    writes = summarised(checkpoint="writes", reason="deadline", beams=4)
    return (
        end(0.2, 0.1, rouge_l=0.2),
        end(0.4, 0.3, rouge_l=0.4),
        end(2.0, 1.0, writes, rouge_l=0.5),
        end(3.0, 2.7, writes, rouge_l=0.7),
        end(4.0, 4.4, replace(writes, finish_reason="stop", beams=2), Kind.SOFTWARE, rouge_l=0.1),
        end(0.3, 40.0, Unsummarised("504 deadline_exceeded"), steps=None),
    )


def test_each_checkpoint_is_shown_with_its_use_of_the_budgets() -> None:
    """Each checkpoint has a row in the catalog's order: finish reasons, beams, and latency as a share of the budget."""
    table, _ = report_of(run(*several())).tables
    assert [" | ".join(row) for row in table.rows] == [
        "picks | 2 | 2 | 200, 300, 400 | 0.62, 0.74, 0.75, 0.75 | stop: 2 | 1: 2 | 0",
        "writes | 3 | 2 | 2000, 3000, 4000 | 0.90, 1.08, 1.10, 1.10 | deadline: 2, stop: 1 | 4: 2, 2: 1 | 0",
    ]


def test_quality_is_shown_by_kind_and_band_of_budgets() -> None:
    """Quality is shown by kind and budget band; a band has its lower edge, and an unanswered text has no quality."""
    _, table = report_of(run(*several())).tables
    assert table.rows == [
        [Kind.PAPERS, "100 to 250", "1", "1", "20.0", "picks: 1"],
        [Kind.PAPERS, "250 to 500", "2", "1", "40.0", "picks: 1"],
        [Kind.PAPERS, "2000 to 5000", "2", "2", "60.0", "writes: 2"],
        [Kind.SOFTWARE, "2000 to 5000", "1", "0", "10.0", "writes: 1"],
    ]


def test_a_report_is_shown_written_and_drawn_without_any_text(tmp_path: Path) -> None:
    """A report has tables, JSON in SI units and a plot, and contains none of the texts."""
    report = report_of(run(*several()))
    console = Console(width=200, file=(shown := io.StringIO()))
    files = tmp_path / "budgets.json", tmp_path / "budgets.svg"
    assert present(report, console, json=files[0], plot=files[1]) == 1
    assert "4 of 6 (66.7%" in shown.getvalue() and "1 without an answer: 504 deadline_exceeded" in shown.getvalue()
    assert "late: budget 4000.0 ms, writes after 4400.0 ms; by the gateway's clock 750.0 ms" in shown.getvalue()
    assert "answer 400.0 ms past it" in shown.getvalue()
    written = json.loads(files[0].read_text())
    assert len(written["requests"]) == 6 and written["requests"][0]["steps_by_deadline_s"] == [[-0.5, -0.1]]
    assert written["requests"][5]["why"] == "504 deadline_exceeded"
    assert written["unanswered"] == {"504 deadline_exceeded": 1}
    for content in (shown.getvalue(), json.dumps(written), files[1].read_text()):
        assert "secret" not in content and "one two three" not in content
    assert ET.fromstring(files[1].read_text()).tag.endswith("svg")


def drawn(run: Run) -> dict[str, int]:
    """The number of answers under each entry of the plot's legend."""
    figure = report_of(run).figure
    assert figure is not None
    (axes,) = figure().axes
    return {str(dots.get_label()): len(np.asarray(dots.get_offsets())) for dots in axes.collections}


def test_a_drawing_has_every_answer_and_the_late_ones_apart() -> None:
    """A plot holds every answer, the late ones apart; a run without answers gives an empty plot."""
    assert drawn(run(*several())) == {"picks": 2, "writes": 2, "writes, late": 1}
    assert drawn(run()) == {}


def test_a_run_without_texts_is_refused() -> None:
    """A run without texts is refused at the command line, and the option is named."""
    app = typer.Typer()
    app.command()(figures.command)
    refused = CliRunner().invoke(app, ["--texts", "0"], env={"COLUMNS": "200"})
    assert refused.exit_code == 2 and "--texts" in refused.output
