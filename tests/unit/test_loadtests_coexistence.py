"""Coexistence: shuffled turns, a neighbour's work within a turn, ratios within rounds, and runs that are not valid."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from gateway.catalogs.catalog import Catalog, CatalogEntry
from loadtests.client import Reply
from loadtests.coexistence import CoexistenceReport, CoexistenceSettings, keep_busy, slowest_of, summarizers_asked
from loadtests.coexistence_report import print_coexistence, verdict, write_coexistence
from loadtests.coexistence_turns import (
    Company,
    Finished,
    Neighbour,
    Place,
    Turn,
    counted_rounds,
    faults,
    met,
    neighbour_within,
    order,
    p95_ratio,
)
from loadtests.offered_load import Ending, LoadSettings, Shot, summarised
from loadtests.summary_errors import NoSummarizer
from loadtests.summary_texts import TextFiles, longest_papers

BUSY = Neighbour(summaries=4.0, per_s=2.0, asked_share=1.0, engine_share=0.9, failures={})


def turn(
    number: int,
    company: Company,
    latency_ms: float,
    lag_ms: float = 0.1,
    ending: Ending = Ending.IN_TIME,
    neighbour: Neighbour = BUSY,
) -> Turn:
    """A hundred requests, of which the slowest ten take twice as long; the last ended as told."""
    shots = [
        Shot(at / 50, at / 50 + lag_ms / 1000, latency_ms / 1000 * (2 if at < 10 else 1), Ending.IN_TIME)
        for at in range(100)
    ]
    shots[-1] = replace(shots[-1], ending=ending)
    load = summarised(shots, LoadSettings(rate=50, seconds=2.0, budget_ms=50))
    return Turn(Place(number, company), load, neighbour if company is Company.BESIDE else None)


def turns(*beside_ms: float) -> list[Turn]:
    """A warm-up that must not count, then rounds: 4 ms alone, so much beside."""
    found = [turn(0, Company.ALONE, 4), turn(0, Company.BESIDE, 400)]
    for number, latency_ms in enumerate(beside_ms, start=1):
        found += [turn(number, Company.BESIDE, latency_ms), turn(number, Company.ALONE, 4)]
    return found


def test_every_round_has_both_turns_in_an_order_that_is_drawn() -> None:
    """A warm-up first; equal seeds give equal orders."""
    places = list(order(20, 3))
    assert places == list(order(20, 3)) != list(order(20, 4))
    rounds = [places[at : at + 2] for at in range(0, len(places), 2)]
    assert [one[0].round for one in rounds] == list(range(21))
    assert all({place.company for place in one} == set(Company) for one in rounds)
    assert {one[0].company for one in rounds} == set(Company)


def test_a_neighbours_summaries_count_by_their_part_within_the_turn() -> None:
    """One that began before and one that ended after count in part, one that lies outside does not."""
    finished = [Finished(-2, 2, 3.0), Finished(2, 6, 4.0), Finished(6, 14, 8.0), Finished(14, 15, 1.0)]
    found = neighbour_within(finished, 0.0, 10.0, clients=1)
    assert found.summaries == pytest.approx(0.5 + 1 + 0.5) and found.per_s == pytest.approx(0.2)
    assert found.asked_share == pytest.approx(1.0) and found.engine_share == pytest.approx((1.5 + 4 + 4) / 10)
    assert neighbour_within(finished, 0.0, 10.0, clients=2).asked_share == pytest.approx(0.5)


def test_a_neighbour_that_fails_wrote_nothing() -> None:
    """But is counted with its reason."""
    found = neighbour_within([Finished(0, 1, 0.0, "503 checkpoint_unavailable")], 0.0, 2.0, clients=1)
    assert (found.summaries, found.failures) == (0.0, {"503 checkpoint_unavailable": 1})


def test_the_verdict_is_the_median_of_the_ratios_within_rounds() -> None:
    """The warm-up does not count; one bad round of three does not decide."""
    taken = turns(4.4, 5.0, 40.0)
    assert [one.number for one in counted_rounds(taken)] == [1, 2, 3]
    ratio = p95_ratio(taken)
    assert ratio is not None and ratio.median == pytest.approx(1.25) and ratio.high == pytest.approx(10.0)
    assert counted_rounds(taken)[0].p50_ratio == pytest.approx(1.1) and met(taken) and not met(turns(4.4, 6.0, 40.0))


def test_a_run_that_is_not_valid_meets_nothing() -> None:
    """A late generator, a neighbour at rest or failing, a classification that was lost: each is named."""
    resting = replace(BUSY, asked_share=0.5)
    failing = replace(BUSY, failures={"429 overloaded": 2})
    for odd, said in (
        (turn(1, Company.ALONE, 4, lag_ms=30), "round 1, alone: the generator sent late, p99 30.0 ms"),
        (turn(1, Company.ALONE, 4, ending=Ending.HUNG), "1 classifications hung"),
        (turn(1, Company.BESIDE, 4, neighbour=resting), "kept busy for 50% only"),
        (turn(1, Company.BESIDE, 4, neighbour=failing), "2 summaries failed: 429 overloaded"),
    ):
        taken = [one for one in turns(4.0) if one.place != odd.place] + [odd]
        (fault,) = faults(taken)
        assert said in fault and not met(taken)
    assert not faults([turn(0, Company.ALONE, 4, lag_ms=30)]), "the warm-up may be anything"


def test_a_round_in_which_nothing_was_answered_does_not_count() -> None:
    """A run of such rounds is not measured, hence not met."""
    nothing = Turn(Place(1, Company.ALONE), summarised([], LoadSettings(rate=1, seconds=1)))
    taken = [nothing, turn(1, Company.BESIDE, 4)]
    assert counted_rounds(taken) == [] and p95_ratio(taken) is None and not met(taken)
    assert faults(taken) == ["round 1, alone: nothing was offered"]


def test_a_report_is_shown_and_written(tmp_path: Path) -> None:
    """One row a round, the generator's delay, the verdict with its margin."""
    report = CoexistenceReport(CoexistenceSettings(rounds=2), "a host", "fast", "slow", tuple(turns(4.4, 4.8)), 1.0)
    console = Console(width=200, file=(shown := io.StringIO()))
    print_coexistence(report, console)
    write_coexistence(report, tmp_path / "coexistence.json")
    assert "1.10" in shown.getvalue() and "0.1 ms in the worst turn" in shown.getvalue()
    assert verdict(report).endswith("met: 1.15 × (1.10 to 1.20)")
    written = json.loads((tmp_path / "coexistence.json").read_text())
    assert written["met"] is True and len(written["turns"]) == 6 and written["turns"][3]["neighbour"] is None
    assert written["p95_ratios"] == pytest.approx([1.1, 1.2])
    assert "not measured" in verdict(replace(report, turns=()))
    assert "not valid" in verdict(replace(report, turns=(*report.turns, turn(2, Company.ALONE, 4, lag_ms=30))))


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
    """One text after the other without a pause; the one under way at the end is finished and told."""
    monkeypatch.setattr("loadtests.coexistence.SETTLE_S", 0.0)
    server, over, found = Summarizer(), asyncio.Event(), list[Finished]()

    def done(one: Finished) -> None:
        found.append(one)
        if len(found) == 4:
            over.set()

    await keep_busy(server, itertools.cycle([b"2", b"no", b"3"]), "slow", over, done, lambda: server.now_s)
    assert found == [
        Finished(0.0, 2.0, 1.8), Finished(2.0, 2.0, 0.0, "429 overloaded"), Finished(2.0, 5.0, 2.7),
        Finished(5.0, 7.0, 1.8),
    ]  # fmt: skip
    assert neighbour_within(found, 0.0, 7.0, clients=1).engine_share == pytest.approx(0.9)


def test_the_neighbour_is_of_the_quality_tier_unless_named_or_missing() -> None:
    """All summarizers where that tier has none; a name that is none is said with those there are."""
    names = [entry.name for entry in summarizers_asked(a_catalog("quality", "realtime", "quality"), None)]
    assert names == ["quality-0", "quality-2"]
    assert [entry.name for entry in summarizers_asked(a_catalog("realtime"), None)] == ["realtime-0"]
    assert [entry.name for entry in summarizers_asked(a_catalog("quality", "realtime"), "realtime-1")] == ["realtime-1"]
    with pytest.raises(NoSummarizer, match="no summarizer 'fast'; summarizers: quality-0"):
        summarizers_asked(a_catalog("quality"), "fast")
    with pytest.raises(NoSummarizer, match="summarizers: none"):
        summarizers_asked(a_catalog(), None)


def test_the_neighbour_gets_the_longest_papers(tmp_path: Path) -> None:
    """The longest first."""
    rows = (json.dumps({"text": "x" * length, "summary": "s"}) for length in (3, 9, 1, 5))
    (tmp_path / "papers.jsonl").write_text("\n".join(rows))
    found = longest_papers(2, TextFiles(papers=tmp_path / "papers.jsonl"))
    assert [len(one.text) for one in found] == [9, 5]


def test_the_slowest_of_them_is_chosen_by_the_gateways_own_forecast() -> None:
    """One that is down has no forecast."""
    candidates = [
        {"checkpoint": "a", "forecast_ms": {"service_time": 80.0}},
        {"checkpoint": "b", "forecast_ms": {"service_time": 900.0}},
        {"checkpoint": "c", "forecast_ms": None},
    ]
    route = json.dumps({"candidates": candidates}).encode()
    assert slowest_of(route, ["a", "b", "c"]) == "b" and slowest_of(route, ["a", "c"]) == "a"
    with pytest.raises(NoSummarizer, match="up: c"):
        slowest_of(route, ["c"])
