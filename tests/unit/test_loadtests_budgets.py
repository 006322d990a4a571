"""Budgets: seeded draws, answers read from the wire, steps matched by id, and promises that are kept or not."""

from __future__ import annotations

import asyncio
import io
import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import median

import pytest
from rich.console import Console

from deployments.replica.summarize.step_log import VARIABLE, Entry, Step
from gateway.model.messages import FinishReason
from loadtests import budgets_figures as figures
from loadtests.budgets import (
    Asked,
    BudgetReport,
    BudgetSettings,
    Ended,
    asked_in_turn,
    draw,
    logging_steps,
    scored,
    with_steps,
)
from loadtests.budgets_plot import Axis, write_budgets_svg
from loadtests.budgets_report import print_budgets, write_budgets
from loadtests.client import Hung, NoReply, Reply
from loadtests.summary_answers import Summarised, Unsummarised, read_summary
from loadtests.summary_errors import NoTexts
from loadtests.summary_texts import HeldoutText, Kind, TextFiles, longest_papers, mixed_texts, summarize_body

EARLY = Step(-0.5, -0.1)


def text(kind: Kind = Kind.PAPERS, reference: str = "one two three") -> HeldoutText:
    """A text with a secret that no report may show."""
    return HeldoutText(kind, "the secret text", reference)


def summarised(
    written: str = "one two three", checkpoint: str = "picks", reason: FinishReason = "stop", beams: int = 1
) -> Summarised:
    """An answer after half a second of the engine."""
    return Summarised(written, checkpoint, reason, beams, 1, lead=False, service_time_s=0.5, gateway_s=0.75)


def end(
    budget_s: float = 1.0,
    latency_s: float = 0.8,
    outcome: Summarised | Unsummarised | None = None,
    kind: Kind = Kind.PAPERS,
    steps: tuple[Step, ...] | None = (EARLY,),
    rouge_l: float | None = None,
) -> Ended:
    """One request that ended."""
    asked = Asked(f"{budget_s}-{latency_s}", text(kind), budget_s)
    return Ended(asked, outcome or summarised(), latency_s, steps, rouge_l)


def report(*ended: Ended) -> BudgetReport:
    """A run of these, over two summarizers."""
    return BudgetReport(BudgetSettings(texts=len(ended)), "a host", ("picks", "writes"), ended, 1.0)


@pytest.fixture
def files(tmp_path: Path) -> TextFiles:
    """Thirty papers of growing length, and four descriptions."""
    kinds = TextFiles(tmp_path / "papers.jsonl", tmp_path / "software.jsonl")
    for path, number in ((kinds.papers, 30), (kinds.software, 4)):
        rows = ({"name": "n", "text": f"{path.stem} {at}" + "." * at, "summary": f"sum {at}"} for at in range(number))
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return kinds


def test_half_of_the_texts_are_papers_and_equal_seeds_give_equal_requests(files: TextFiles) -> None:
    """Kinds are mixed; where a kind has too few texts, each is used again before any a third time."""
    settings = BudgetSettings(texts=21, files=files)
    drawn = draw(settings)
    assert drawn == draw(settings) != draw(replace(settings, seed=14))
    kinds = [asked.text.kind for asked in drawn]
    assert kinds.count(Kind.PAPERS) == 11 and kinds != sorted(kinds)
    papers = [asked.text.text for asked in drawn if asked.text.kind is Kind.PAPERS]
    software = [asked.text.text for asked in drawn if asked.text.kind is Kind.SOFTWARE]
    assert len(set(papers)) == 11 and {software.count(one) for one in software} == {2, 3}
    assert len({asked.request_id for asked in drawn}) == 21


def test_budgets_are_log_uniform_over_the_range(files: TextFiles) -> None:
    """Half of them lie under the geometric mean of the ends, none outside."""
    budgets_s = [asked.budget_s for asked in draw(BudgetSettings(texts=4000, files=files))]
    assert 0.0999 < min(budgets_s) < 0.102 and 4.9 < max(budgets_s) < 5.001
    assert median(budgets_s) == pytest.approx((0.1 * 5) ** 0.5, rel=0.06)


def test_texts_that_are_missing_are_said_to_be(files: TextFiles) -> None:
    """With the place where they were looked for."""
    files.papers.unlink()
    with pytest.raises(NoTexts, match=r"papers\.jsonl"):
        mixed_texts(4, 1, files)
    files.papers.write_text("")
    with pytest.raises(NoTexts, match="no text"):
        longest_papers(4, files)
    files.papers.write_text('{"text": "t"}\n')
    with pytest.raises(NoTexts, match="`summary`"):
        longest_papers(4, files)


def test_a_description_goes_out_with_its_domain() -> None:
    """A paper goes without."""
    assert json.loads(summarize_body(text(Kind.SOFTWARE)))["parameters"] == {"domain": "software"}
    assert json.loads(summarize_body(text())) == {"inputs": "the secret text"}


def answer(**changes: object) -> Reply:
    """An answer as the contract has it."""
    document = {
        "outputs": [{"summary_text": "one two three"}],
        "routing": {"checkpoint": "picks", "tier": "quality"},
        "timings_ms": {"route": 0.1, "infer": 500.0, "total": 750.0},
        "input": {"tokens": 9, "truncated": False, "kept": 9},
        "generation": [{"finish_reason": "stop", "steps": 1, "tokens": 3, "beams": 1, "lead": False}],
        **changes,
    }
    return Reply(200, {}, json.dumps(document).encode())


def test_an_answer_is_read_and_anything_else_says_why() -> None:
    """A refusal keeps its code; an answer without details, or with two summaries, is none to a measurement."""
    assert read_summary(answer()) == summarised()
    assert read_summary(Reply(504, {}, b'{"code": "deadline_exceeded"}')) == Unsummarised("504 deadline_exceeded")
    assert read_summary(Reply(503, {}, b"<html>")) == Unsummarised("503 without a code")
    odd = Unsummarised("the answer is no summary with details")
    assert [read_summary(answer(outputs=[])), read_summary(Reply(200, {}, b"[]"))] == [odd, odd]


class Server:
    """Answers each request with the next of a list; no request may come before the one before has ended."""

    def __init__(self, *replies: Reply | NoReply | Hung) -> None:
        self.replies: Iterator[Reply | NoReply | Hung] = iter(replies)
        self.headers: list[Mapping[str, str]] = []
        self.under_way = 0

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        assert not self.under_way
        self.under_way += 1
        await asyncio.sleep(0)
        self.under_way -= 1
        self.headers.append(headers)
        reply = next(self.replies)
        if isinstance(reply, Reply):
            return reply
        raise reply


async def test_texts_are_asked_for_one_at_a_time_by_the_clients_clock() -> None:
    """Each with its budget and an id to find its steps by; whatever comes is an ending."""
    drawn = [Asked(f"id-{at}", text(), 0.25) for at in range(3)]
    server, ticks = Server(answer(), NoReply("ClientOSError"), Hung("no answer within 40 s")), count()
    shown: list[Ended] = []
    ended = await asked_in_turn(server, drawn, lambda: float(next(ticks)), shown.append)
    assert server.headers[1] == {"X-Latency-SLA-Ms": "250.000", "X-Request-Id": "id-1"}
    whys = [Unsummarised("ClientOSError"), Unsummarised("no answer within 40 s")]
    assert [one.outcome for one in ended] == [summarised(), *whys] and shown == ended
    assert [one.latency_s for one in ended] == [1.0, 1.0, 1.0] and not any(one.in_time for one in ended)


def test_steps_are_matched_by_the_requests_id() -> None:
    """A text that was tried twice has the steps of both; one that no log names has None, which is not none."""
    entries = [Entry("1.0-0.8", (EARLY,), False), Entry("other", (), False), Entry("1.0-0.8", (EARLY,), True)]
    twice, unnamed = with_steps([end(steps=None), end(2.0, steps=None)], entries)
    assert twice.steps == (EARLY, EARLY) and unnamed.steps is None
    assert with_steps([end()], [Entry("1.0-0.8", (), False)])[0].steps == ()


def test_answers_are_scored_against_their_references() -> None:
    """From 0 to 1; what was not answered has no score."""
    pytest.importorskip("rouge_score")
    same, apart, none = scored([end(), end(outcome=summarised("nothing alike")), end(outcome=Unsummarised("x"))])
    assert (same.rouge_l, apart.rouge_l, none.rouge_l) == (1.0, 0.0, None)


def test_the_log_of_steps_is_on_for_what_starts_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And as it was before afterwards."""
    monkeypatch.delenv(VARIABLE, raising=False)
    with logging_steps(tmp_path):
        assert os.environ[VARIABLE] == str(tmp_path)
    assert VARIABLE not in os.environ
    monkeypatch.setenv(VARIABLE, "mine")
    with logging_steps(tmp_path):
        pass
    assert os.environ[VARIABLE] == "mine"


def kept(*ended: Ended) -> list[bool]:
    """Which of the three promises a run keeps."""
    return [promise.met for promise in figures.promises(report(*ended))]


def test_promises_are_in_time_not_empty_and_punctual() -> None:
    """One late answer in a hundred may be, two may not; a request without an answer is not in time."""
    good = [end()] * 99
    assert kept(*good, end(latency_s=1.2)) == [True, True, True]
    assert kept(*good[:98], end(latency_s=1.2), end(latency_s=1.2)) == [False, True, True]
    assert kept(*good[:98], *[end(outcome=Unsummarised("x"), steps=None)] * 2) == [False, True, True]
    assert kept(*good, end(outcome=summarised(" \n"))) == [True, False, True]
    assert kept(*good, end(steps=(EARLY, Step(0.01, 0.2)))) == [True, True, False]
    assert kept(*good, end(steps=(Step(-0.01, 0.2),))) == [True, True, True], "it began before the deadline"
    assert kept() == [False, False, False]


def test_punctuality_that_no_log_proves_is_not_kept() -> None:
    """An answer whose steps are not in the log, or a log without any step."""
    assert kept(end(), end(steps=None)) == [True, True, False]
    assert "1 answers were not logged" in figures.promises(report(end(), end(steps=None)))[2].sentence
    assert kept(end(steps=())) == [True, True, False]


def test_overshoots_are_signed() -> None:
    """Negative where all were before; None where there is nothing."""
    assert figures.longest_overshoot_s([end(), end(latency_s=0.9)]) == pytest.approx(-0.1)
    assert figures.longest_overshoot_s([end(latency_s=1.25), end(outcome=Unsummarised("x"), latency_s=40)]) == 0.25
    assert figures.longest_step_overshoot_s([end(), end(steps=(Step(-0.1, 0.03),))]) == 0.03
    assert figures.longest_overshoot_s([]) is figures.longest_step_overshoot_s([end(steps=None)]) is None


def several() -> Sequence[Ended]:
    """Two by one checkpoint, three by the other of which one is late, and one without an answer."""
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
    """Counts by finish reason and beams, ratios of latency to budget, in the catalog's order."""
    picks, writes = figures.by_checkpoint(report(*several()))
    assert (picks.checkpoint, picks.answers, picks.in_time) == ("picks", 2, 2)
    assert (writes.checkpoint, writes.answers, writes.in_time) == ("writes", 3, 2)
    assert (picks.ratios.p50, writes.ratios.most) == pytest.approx((0.625, 1.1))
    assert (writes.finish_reasons, writes.beams) == ({"deadline": 2, "stop": 1}, {2: 1, 4: 2})
    assert (writes.least_budget_s, writes.median_budget_s, writes.most_budget_s) == (2.0, 3.0, 4.0)


def test_quality_is_shown_by_kind_and_band_of_budgets() -> None:
    """A budget on an edge belongs to the band that begins there; what was not answered counts as a text only."""
    bands = figures.by_band(report(*several()))
    assert [(band.kind, band.from_s, band.to_s) for band in bands] == [
        (Kind.PAPERS, 0.1, 0.25), (Kind.PAPERS, 0.25, 0.5), (Kind.PAPERS, 2.0, 5.0), (Kind.SOFTWARE, 2.0, 5.0)
    ]  # fmt: skip
    assert [(band.texts, band.in_time) for band in bands] == [(1, 1), (2, 1), (2, 2), (1, 0)]
    assert [band.rouge_l for band in bands] == pytest.approx([0.2, 0.4, 0.6, 0.1])
    assert bands[2].checkpoints == {"writes": 2}


def test_a_report_is_shown_written_and_drawn_without_any_text(tmp_path: Path) -> None:
    """Tables, JSON in SI units, and a drawing in which late answers have a ring."""
    run = report(*several())
    console = Console(width=200, file=(shown := io.StringIO()))
    print_budgets(run, console)
    write_budgets(run, tmp_path / "budgets.json")
    write_budgets_svg(run, tmp_path / "budgets.svg")
    assert "4 of 6 (66.7%" in shown.getvalue() and "504 deadline_exceeded" in shown.getvalue()
    assert "late: budget 4000.0 ms, writes after 4400.0 ms; by the gateway's clock 750.0 ms" in shown.getvalue()
    assert "answer 400.0 ms past it" in shown.getvalue() and figures.unanswered(run) == {"504 deadline_exceeded": 1}
    written = json.loads((tmp_path / "budgets.json").read_text())
    assert len(written["requests"]) == 6 and written["requests"][0]["steps_by_deadline_s"] == [[-0.5, -0.1]]
    assert written["requests"][5]["why"] == "504 deadline_exceeded"
    drawing = (tmp_path / "budgets.svg").read_text()
    assert drawing.count("fill-opacity") == 5 and drawing.count('stroke="#d93025"') == 1
    assert "writes" in drawing and ET.fromstring(drawing).tag.endswith("svg")
    for content in (shown.getvalue(), json.dumps(written), drawing):
        assert "secret" not in content and "one two three" not in content
    write_budgets_svg(report(), tmp_path / "empty.svg")
    assert "<circle" not in (tmp_path / "empty.svg").read_text()


def test_a_logarithmic_axis_keeps_ratios() -> None:
    """Equal ratios are equally far apart; ticks are the round numbers within."""
    axis = Axis(0.1, 10.0, 0.0, 200.0)
    assert [axis.at(seconds) for seconds in (0.1, 1.0, 10.0, 99.0)] == pytest.approx([0.0, 100.0, 200.0, 200.0])
    assert Axis(0.1, 5.0, 0, 1).ticks() == pytest.approx([0.1, 0.2, 0.5, 1.0, 2.0, 5.0])
