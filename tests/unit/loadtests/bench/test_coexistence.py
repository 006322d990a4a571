"""Coexistence: shuffled turns, a neighbour's work within a turn, ratios within rounds, and invalid runs."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from gateway.catalogs.catalog import Catalog, CatalogEntry
from loadtests.bench import coexistence
from loadtests.bench.coexistence import (
    BESIDE,
    Finished,
    Neighbour,
    Run,
    Sample,
    Settings,
    faults,
    keep_busy,
    neighbour_within,
    report_of,
    slowest_of,
    summarizers_asked,
    verdict,
)
from loadtests.bench.measuring.company import ALONE
from loadtests.bench.measuring.report import present
from loadtests.bench.measuring.rounds import Slot, Turn, Turns
from loadtests.bench.summaries import NoSummarizer
from loadtests.client import Reply
from loadtests.offered_load import Ending, LoadSettings, Shot, summarised

BUSY = Neighbour(summaries=4.0, per_s=2.0, asked_share=1.0, engine_share=0.9, failures={})


def turn(
    number: int,
    company: str,
    latency_ms: float,
    lag_ms: float = 0.1,
    ending: Ending = Ending.IN_TIME,
    neighbour: Neighbour = BUSY,
) -> Turn[Sample]:
    """A turn of a hundred requests, of which the slowest ten take twice as long; the last one ends as given."""
    shots = [
        Shot(at / 50, at / 50 + lag_ms / 1000, latency_ms / 1000 * (2 if at < 10 else 1), Ending.IN_TIME)
        for at in range(100)
    ]
    shots[-1] = replace(shots[-1], ending=ending)
    load = summarised(shots, LoadSettings(rate=50, seconds=2.0, budget_ms=50))
    return Turn(Slot(number, 1, company), Sample(load, neighbour if company == BESIDE else None))


def turns(*beside_ms: float) -> Turns[Sample]:
    """A warm-up that must not count, then rounds: 4 ms alone, and these latencies beside the neighbour."""
    found = [turn(0, ALONE, 4), turn(0, BESIDE, 400)]
    for number, latency_ms in enumerate(beside_ms, start=1):
        found += [turn(number, BESIDE, latency_ms), turn(number, ALONE, 4)]
    return Turns(tuple(found))


def with_turn(taken: Turns[Sample], odd: Turn[Sample]) -> Turns[Sample]:
    """The turns, with this one in place of the turn of its slot."""
    return Turns((*(one for one in taken.taken if one.slot != odd.slot), odd))


def a_run(taken: Turns[Sample]) -> Run:
    """A run of these turns."""
    return Run(Settings(rounds=2), "a host", "fast", "slow", taken, 1.0)


def test_a_neighbours_summaries_count_by_their_part_within_the_turn() -> None:
    """A summary counts by the part of it that lies within the turn."""
    finished = [Finished(-2, 2, 3.0), Finished(2, 6, 4.0), Finished(6, 14, 8.0), Finished(14, 15, 1.0)]
    found = neighbour_within(finished, 0.0, 10.0, clients=1)
    assert found.summaries == pytest.approx(0.5 + 1 + 0.5) and found.per_s == pytest.approx(0.2)
    assert found.asked_share == pytest.approx(1.0) and found.engine_share == pytest.approx((1.5 + 4 + 4) / 10)
    assert neighbour_within(finished, 0.0, 10.0, clients=2).asked_share == pytest.approx(0.5)


def test_a_neighbour_that_fails_wrote_nothing() -> None:
    """A failed request of the neighbour counts as no summary, and as a failure with its reason."""
    found = neighbour_within([Finished(0, 1, 0.0, "503 checkpoint_unavailable")], 0.0, 2.0, clients=1)
    assert (found.summaries, found.failures) == (0.0, {"503 checkpoint_unavailable": 1})


def test_the_verdict_is_the_median_of_the_ratios_within_rounds() -> None:
    """The verdict is the median of the ratios within rounds: neither the warm-up nor one bad round decides."""
    kept = verdict(turns(4.4, 5.0, 40.0))
    assert kept.met and kept.sentence.endswith("met by 4%: 1.25 (1.10 to 10.00)")
    assert not verdict(turns(4.4, 6.0, 40.0)).met
    (table,) = report_of(a_run(turns(4.4, 5.0, 40.0))).tables
    assert [row[0] for row in table.rows] == ["1", "2", "3"]
    assert table.rows[0][1:3] == ["4.00, 4.40 (1.10 ×)", "8.00, 8.80 (1.10 ×)"]


def test_a_run_that_is_not_valid_meets_nothing() -> None:
    """A run is invalid if the generator sent late, the neighbour rested or failed, or a classification was lost."""
    resting = replace(BUSY, asked_share=0.5)
    failing = replace(BUSY, failures={"429 overloaded": 2})
    for odd, said in (
        (turn(1, ALONE, 4, lag_ms=30), "round 1, alone: the generator sent late, p99 30.0 ms"),
        (turn(1, ALONE, 4, ending=Ending.HUNG), "1 classifications hung"),
        (turn(1, BESIDE, 4, neighbour=resting), "kept busy for 50% only"),
        (turn(1, BESIDE, 4, neighbour=failing), "2 summaries failed: 429 overloaded"),
    ):
        taken = with_turn(turns(4.0), odd)
        (fault,) = faults(taken)
        assert said in fault and not verdict(taken).met and "not valid" in verdict(taken).sentence
        assert f"NOT VALID: {fault}" in [one.sentence for one in report_of(a_run(taken)).verdicts]
    assert not faults(Turns((turn(0, ALONE, 4, lag_ms=30),))), "the warm-up may be anything"


def test_a_round_in_which_nothing_was_answered_does_not_count() -> None:
    """A round without any answer does not count; a run of such rounds is not measured, hence not met."""
    nothing = Turn(Slot(1, 1, ALONE), Sample(summarised([], LoadSettings(rate=1, seconds=1))))
    taken = Turns((nothing, turn(1, BESIDE, 4)))
    assert taken.rounds() == [] and not verdict(taken).met and "not measured" in verdict(taken).sentence
    assert faults(taken) == ["round 1, alone: nothing was offered"]


def test_a_report_is_shown_and_written(tmp_path: Path) -> None:
    """A report has a row for each round, the generator's delay, and the verdict with its margin."""
    report = report_of(a_run(turns(4.4, 4.8)))
    console = Console(width=200, file=(shown := io.StringIO()))
    assert present(report, console, json=tmp_path / "coexistence.json") == 0
    assert "1.10" in shown.getvalue() and "0.1 ms in the worst turn" in shown.getvalue()
    assert "met by 12%: 1.15 (1.10 to 1.20)" in shown.getvalue()
    written = json.loads((tmp_path / "coexistence.json").read_text())
    taken = written["turns"]["taken"]
    assert len(taken) == 6 and taken[3]["slot"]["contestant"] == ALONE and taken[3]["sample"]["neighbour"] is None
    assert written["p95_ratios"] == pytest.approx([1.1, 1.2]) and written["verdicts"][0]["met"] is True
    assert taken[2]["sample"]["load"]["endings"]["in_time"] == 100 and taken[2]["sample"]["neighbour"]["per_s"] == 2.0


def a_catalog(*tiers: str) -> Catalog:
    """Summarizers of these tiers, named after their places, and a classifier."""
    quality = {"metric": "ROUGE-L", "value": 20.0, "data_set": "small", "reference": "made up"}
    rest = {"family": "BART", "source": "starter:any", "quality": quality, "licence": "Apache-2.0"}
    entries = [{"name": f"{tier}-{at}", "task": "summarize", "tier": tier, **rest} for at, tier in enumerate(tiers)]
    entries.append({"name": "fast", "task": "classify", "tier": "realtime", **rest})
    return Catalog(name="small", checkpoints=tuple(CatalogEntry.model_validate(entry) for entry in entries))


class Summarizer:
    """Answers each text after the time it names, in seconds of a clock that it alone moves; "no" is refused."""

    def __init__(self) -> None:
        self.now_s = 0.0

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        assert headers == {"X-Checkpoint": "slow"}
        if body == b"no":
            return Reply(429, {}, b'{"code": "overloaded"}')
        self.now_s += float(body)
        document = {
            "outputs": [{"summary_text": "short"}],
            "routing": {"checkpoint": "slow"},
            "timings_ms": {"infer": float(body) * 900, "total": 1.0},
            "generation": [{"finish_reason": "stop", "steps": 1, "beams": 1, "lead": False}],
        }
        return Reply(200, {}, json.dumps(document).encode())


async def test_a_summarizer_is_kept_busy_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A summarizer gets one text after the other without a pause; the last one is finished and counted."""
    monkeypatch.setattr("loadtests.bench.coexistence.SETTLE_S", 0.0)
    server, over, found = Summarizer(), asyncio.Event(), list[Finished]()

    def done(one: Finished) -> None:
        found.append(one)
        if len(found) == 4:
            over.set()

    await keep_busy(server, itertools.cycle([b"2", b"no", b"3"]), "slow", over, done, lambda: server.now_s, rest_s=0)
    assert found == [
        Finished(0.0, 2.0, 1.8), Finished(2.0, 2.0, 0.0, "429 overloaded"), Finished(2.0, 5.0, 2.7),
        Finished(5.0, 7.0, 1.8),
    ]  # fmt: skip
    assert neighbour_within(found, 0.0, 7.0, clients=1).engine_share == pytest.approx(0.9)


def test_the_neighbour_is_of_the_quality_tier_unless_named_or_missing() -> None:
    """The neighbour is every summarizer of the quality tier, or all if there is none, unless one is named."""
    names = [entry.name for entry in summarizers_asked(a_catalog("quality", "realtime", "quality"), None)]
    assert names == ["quality-0", "quality-2"]
    assert [entry.name for entry in summarizers_asked(a_catalog("realtime"), None)] == ["realtime-0"]
    assert [entry.name for entry in summarizers_asked(a_catalog("quality", "realtime"), "realtime-1")] == ["realtime-1"]
    with pytest.raises(NoSummarizer, match="no summarizer 'fast'; summarizers: quality-0"):
        summarizers_asked(a_catalog("quality"), "fast")
    with pytest.raises(NoSummarizer, match="summarizers: none"):
        summarizers_asked(a_catalog(), None)


def test_the_slowest_of_them_is_chosen_by_the_gateways_own_forecast() -> None:
    """The slowest summarizer is the one with the longest service time in the gateway's forecast."""
    candidates = [
        {"checkpoint": "a", "forecast_ms": {"service_time": 80.0}},
        {"checkpoint": "b", "forecast_ms": {"service_time": 900.0}},
        {"checkpoint": "c", "forecast_ms": None},
    ]
    route = json.dumps({"candidates": candidates}).encode()
    assert slowest_of(route, ["a", "b", "c"]) == "b" and slowest_of(route, ["a", "c"]) == "a"
    with pytest.raises(NoSummarizer, match="up: c"):
        slowest_of(route, ["c"])


def test_arguments_that_measure_nothing_are_refused() -> None:
    """Impossible arguments are refused at the command line, and the option is named."""
    app = typer.Typer()
    app.command()(coexistence.command)
    for option, value in (("--rounds", "0"), ("--rate", "0"), ("--budget-ms", "inf"), ("--summarizers", "0")):
        refused = CliRunner().invoke(app, [option, value], env={"COLUMNS": "200"})
        assert refused.exit_code == 2 and option in refused.output
