"""The speed race: the faster baseline, the two targets, cautions about conditions, and the report."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import entry
from rich.console import Console

from gateway.catalogs.catalog import Catalog
from gateway.model.tier import Tier
from loadtests.bench.measuring.report import present
from loadtests.bench.measuring.rounds import WARM_UP, Slot, Turn, Turns
from loadtests.bench.peers.wrk import Sample
from loadtests.bench.speed import Race, SpeedSettings, beside, cautions, contests, raced_entry, report_of
from loadtests.errors import NoRace
from loadtests.sentences import Inputs, grouped

MANY = 16


def sample(p50_ms: float = 1.0, requests: int = 1000, errors: int = 0) -> Sample:
    """One second of a contestant."""
    return Sample(requests, errors, 1.0, p50_ms / 1000, p50_ms / 500, p50_ms / 250)


def a_race(gateway_ms: float = 1.4, gateway_requests: int = 1320, errors_in_round: int | None = None) -> Turns[Sample]:
    """Three rounds and a warm-up; FastAPI has the lower latency with one thread, the higher throughput with two."""
    taken = []
    for number in range(WARM_UP, 4):
        drift = 1 + number / 10  # every round is slower than the one before, for everyone
        for connections in (1, MANY):
            for name, p50_ms, requests in (
                ("in-process", 0.6, 2000),
                ("fastapi-1", 1.5, 800),
                ("fastapi-2", 1.7, 1000),
                ("fastapi-spins", 1.6, 700),
                ("gateway", gateway_ms, gateway_requests),
            ):
                failed = 3 if name == "gateway" and number == errors_in_round and connections == 1 else 0
                one = sample(p50_ms * drift, round(requests / drift), failed)
                taken.append(Turn(Slot(number, connections, name), one))
    return Turns(tuple(taken))


def report(turns: Turns[Sample]) -> Race:
    """A race with these turns on a quiet machine."""
    return Race(
        checkpoint="student",
        variant="onnx-int8",
        host="a host",
        sentences=1896,
        settings=SpeedSettings(rounds=3),
        idle={"gateway": 0.01},
        others=0.0,
        turns=turns,
        alone=a_race(),
        lasted_s=1.0,
    )


def test_an_error_in_a_turn_is_told() -> None:
    """A turn with errors is named in a caution, and its round does not count at that load."""
    turns = a_race(errors_in_round=2)
    assert turns.rounds(1) == [1, 3] and turns.rounds(MANY) == [1, 2, 3]
    assert any("3 errors" in said and "round 2" in said for said in cautions(report(turns)))


def test_a_turn_without_an_answer_spoils_its_round() -> None:
    """A round in which a turn had no answer does not count: silence is no latency of zero."""
    taken = list(a_race().taken)
    taken[-1] = replace(taken[-1], sample=sample(0.0, requests=0))
    assert Turns(tuple(taken)).rounds(MANY) == [1, 2]


def test_the_baseline_is_the_faster_fastapi_for_each_measure() -> None:
    """The baseline of each measure is the faster FastAPI, whatever its number of threads."""
    turns = a_race()
    assert [one.faster(turns) for one in contests(MANY)] == ["fastapi-1", "fastapi-2", "fastapi-1"]


@pytest.mark.parametrize(
    ("gateway_ms", "requests", "words"),
    [
        (1.4, 1320, ("met by 11%", "met by 10%", "met by 7%")),
        (1.68, 1080, ("missed by 7%", "missed by 10%", "missed by 12%")),
    ],
)
def test_a_verdict_says_by_how_much(gateway_ms: float, requests: int, words: tuple[str, str, str]) -> None:
    """A verdict gives its margin in per cent of the bound, on either side."""
    found = report_of(report(a_race(gateway_ms, requests))).verdicts
    assert all(word in verdict.sentence for word, verdict in zip(words, found, strict=True))
    assert [verdict.met for verdict in found] == ["met" in word for word in words]


def test_a_race_without_a_round_that_counts_meets_nothing() -> None:
    """A race without a counted round meets no target, and says that nothing was measured."""
    turns = Turns(tuple(turn for turn in a_race().taken if turn.slot.round == WARM_UP))
    found = report_of(report(turns)).verdicts
    assert len(found) == 3 and not any(verdict.met for verdict in found)
    assert all("not measured" in verdict.sentence for verdict in found)


def test_a_busy_machine_and_a_server_that_spins_are_said() -> None:
    """Cautions name a busy machine and a server that uses the processor while idle."""
    said = cautions(replace(report(a_race()), idle={"gateway": 0.05}, others=0.4))
    assert len(said) == 2 and "gateway used 5.0%" in said[0] and "40%" in said[1]
    assert not cautions(report(a_race()))


def test_what_an_idle_gateway_costs_the_others_is_said() -> None:
    """The report says what an idle gateway costs FastAPI's latency, if that was measured."""
    assert beside(report(a_race()))[0] == "fastapi-1: 1.00 × its median latency at 1 connection without the gateway"
    assert beside(replace(report(a_race()), alone=Turns(()))) == []


def test_a_report_can_be_shown_written_and_drawn(tmp_path: Path) -> None:
    """A report holds every contestant in its table and JSON; the file names no folder of this machine."""
    console = Console(width=160, file=(told := io.StringIO()))
    status = present(report_of(report(a_race())), console, json=tmp_path / "race.json", plot=tmp_path / "race.svg")
    texts = (told.getvalue(), (tmp_path / "race.json").read_text())
    assert status == 0 and "met by 11%" in texts[0]
    for name in ("in-process", "fastapi-1", "fastapi-2", "fastapi-spins", "gateway"):
        assert all(name in text for text in texts)
    document = json.loads(texts[1])
    assert document["standings"]["gateway"]["median latency at 1 connection"]["ratio"]["median"] == pytest.approx(
        1.4 / 1.5
    )
    assert len(document["turns"]["taken"]) == 4 * 2 * 5 and str(Path.cwd()) not in texts[1]
    assert (tmp_path / "race.svg").read_text().startswith("<?xml")


def test_the_raced_checkpoint_is_the_first_realtime_one_or_the_one_named() -> None:
    """The default is the first realtime classifier; another task's checkpoint or an unknown one is refused."""
    catalog = Catalog(
        name="made-up", checkpoints=(entry("slow", Tier.QUALITY, 90.0), entry("fast", Tier.REALTIME, 80.0))
    )
    assert (raced_entry(catalog, None).name, raced_entry(catalog, "slow").name) == ("fast", "slow")
    with pytest.raises(NoRace, match=r"no classifier 'other'; it has slow, fast"):
        raced_entry(catalog, "other")
    with pytest.raises(NoRace, match="realtime"):
        raced_entry(catalog.model_copy(update={"checkpoints": catalog.checkpoints[:1]}), None)


def test_lists_have_a_target_of_their_own() -> None:
    """Of lists of texts more requests/s are asked than of single ones."""
    single, lists = contests(MANY), contests(MANY, texts=8)
    assert (single[1].bound, lists[1].bound) == (1.2, 1.3)


@pytest.mark.parametrize(("size", "found"), [(1, ["a", "b", "c"]), (2, [["a", "b"]]), (4, [])])
def test_texts_are_asked_in_lists_of_one_size(size: int, found: list[Inputs]) -> None:
    """Texts are asked one a request, or in lists of equal size; a rest that fills none is left out."""
    assert grouped(["a", "b", "c"], size) == found
