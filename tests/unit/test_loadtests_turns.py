"""What a race counts and compares: its order, the rounds that count, spreads, ratios and verdicts."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from loadtests.contestants import pooled
from loadtests.race import RaceReport, RaceSettings
from loadtests.race_report import print_report, write_json, write_svg
from loadtests.turns import WARM_UP, Sample, Slot, Spread, Turn, Turns, median_latency, schedule, throughput
from loadtests.verdicts import Target, beside, cautions, faster, standings, targets

MANY = 16


def sample(p50_ms: float = 1.0, requests: int = 1000, errors: int = 0) -> Sample:
    """One second of a contestant."""
    return Sample(requests, errors, 1.0, p50_ms / 1000, p50_ms / 500, p50_ms / 250)


def a_race(gateway_ms: float = 2.0, gateway_requests: int = 900, errors_in_round: int | None = None) -> Turns:
    """Three rounds and a warm-up; FastAPI is faster alone with one thread (1.5 ms), in a crowd with two (1000/s)."""
    taken = []
    for number in range(WARM_UP, 4):
        drift = 1 + number / 10  # every round is slower than the one before, for everyone
        for connections in (1, MANY):
            for name, p50_ms, requests in (
                ("in-process", 0.6, 2000),
                ("fastapi-1", 1.5, 800),
                ("fastapi-2", 1.7, 1000),
                ("gateway", gateway_ms, gateway_requests),
            ):
                failed = 3 if name == "gateway" and number == errors_in_round and connections == 1 else 0
                one = sample(p50_ms * drift, round(requests / drift), failed)
                taken.append(Turn(Slot(number, connections, name), one))
    return Turns(tuple(taken))


def report(turns: Turns) -> RaceReport:
    """A race of these turns on a quiet machine."""
    return RaceReport(
        checkpoint="student",
        variant="onnx-int8",
        host="a host",
        sentences=1896,
        settings=RaceSettings(rounds=3),
        idle={"gateway": 0.01},
        others=0.0,
        routed_budget_ms=None,
        routed_elsewhere=0.0,
        turns=turns,
        alone=a_race(),
        lasted_s=1.0,
    )


def test_everyone_has_one_turn_at_each_load_in_every_round() -> None:
    """However it is shuffled, no contestant has more turns than another."""
    slots = list(schedule(["a", "b", "c"], (1, MANY), rounds=5, seed=1))
    assert Counter(slots) == {Slot(n, c, name): 1 for n in range(6) for c in (1, MANY) for name in "abc"}


def test_the_turns_at_one_load_stand_together() -> None:
    """What is compared within a round was measured one after the other."""
    slots = list(schedule(["a", "b", "c"], (1, MANY), rounds=3, seed=1))
    blocks = [slots[at : at + 3] for at in range(0, len(slots), 3)]
    assert all(len({(slot.round, slot.connections) for slot in block}) == 1 for block in blocks)


def test_equal_seeds_give_equal_orders_and_the_order_changes_from_round_to_round() -> None:
    """A race can be repeated, and nobody always follows the same rival."""
    first, again = (list(schedule("abcd", (1, MANY), 5, seed=4)) for _ in range(2))
    assert first == again
    orders = {tuple(slot.contestant for slot in first[at : at + 4]) for at in range(0, len(first), 4)}
    assert len(orders) > 1


def test_the_warm_up_does_not_count() -> None:
    """A figure is of the counted rounds alone."""
    assert a_race().rounds(1) == [1, 2, 3]
    spread = a_race().spread("gateway", 1, median_latency)
    assert spread is not None
    assert (spread.median, spread.low, spread.high) == pytest.approx((0.0024, 0.0022, 0.0026))


def test_an_error_spoils_its_round_for_everyone_at_that_load() -> None:
    """A round in which one contestant erred is left out of all medians at that load, and only there."""
    turns = a_race(errors_in_round=2)
    assert turns.rounds(1) == [1, 3] and turns.rounds(MANY) == [1, 2, 3]
    assert [turn.slot for turn in turns.spoilt()] == [Slot(2, 1, "gateway")]
    assert any("3 errors" in said and "round 2" in said for said in cautions(report(turns)))


def test_a_turn_without_an_answer_spoils_its_round() -> None:
    """Silence is no latency of zero."""
    taken = list(a_race().taken)
    taken[-1] = replace(taken[-1], sample=sample(0.0, requests=0))
    assert Turns(tuple(taken)).rounds(MANY) == [1, 2]


def test_ratios_are_taken_within_a_round() -> None:
    """A drift of the whole machine leaves a ratio as it is."""
    ratio = a_race().ratio("gateway", "fastapi-1", 1, median_latency)
    assert ratio is not None
    assert (ratio.low, ratio.median, ratio.high) == pytest.approx((2.0 / 1.5,) * 3)


def test_the_baseline_is_the_faster_fastapi_for_each_measure() -> None:
    """The gateway is compared with the best that FastAPI gave, whichever thread count gave it."""
    turns = a_race()
    assert faster(turns, 1, median_latency, less_is_better=True) == "fastapi-1"
    assert faster(turns, MANY, throughput, less_is_better=False) == "fastapi-2"


@pytest.mark.parametrize(
    ("gateway_ms", "requests", "words"),
    [(2.0, 880, ("met by 11%", "met by 10%")), (2.4, 720, ("missed by 7%", "missed by 10%"))],
)
def test_a_verdict_says_by_how_much(gateway_ms: float, requests: int, words: tuple[str, str]) -> None:
    """The margin is in per cent of the bound, whichever side of it the ratio is on."""
    found = targets(report(a_race(gateway_ms, requests)))
    assert all(word in target.sentence() for word, target in zip(words, found, strict=True))
    assert [target.met for target in found] == ["met" in word for word in words]


def test_a_target_is_kept_up_to_its_bound() -> None:
    """At the bound it is still met, beyond it is missed, from above as from below."""
    at = Spread(1.5, 1.0, 2.0)
    assert Target("latency", "fastapi-1", at, 1.5, at_most=True).met
    assert Target("throughput", "fastapi-1", at, 1.5, at_most=False).met
    assert not Target("latency", "fastapi-1", at, 1.49, at_most=True).met
    assert not Target("throughput", "fastapi-1", at, 1.51, at_most=False).met


def test_a_race_without_a_round_that_counts_meets_nothing() -> None:
    """Nothing measured is nothing kept, and the sentence says so."""
    turns = Turns(tuple(turn for turn in a_race().taken if turn.slot.round == WARM_UP))
    assert not any(target.met for target in targets(report(turns)))
    assert all("not measured" in target.sentence() for target in targets(report(turns)))


def test_a_busy_machine_and_a_server_that_spins_are_said() -> None:
    """The conditions of a race are part of its result."""
    said = cautions(replace(report(a_race()), idle={"gateway": 0.05}, others=0.4))
    assert len(said) == 2 and "gateway used 5.0%" in said[0] and "40%" in said[1]
    assert not cautions(report(a_race()))


def test_what_an_idle_gateway_costs_the_others_is_said() -> None:
    """FastAPI's figures beside the gateway stand next to those without it."""
    assert beside(report(a_race()))[0] == "fastapi-1: 1.00 × its median latency at 1 connection without the gateway"
    assert beside(replace(report(a_race()), alone=Turns(()))) == []


def test_a_report_can_be_shown_written_and_drawn(tmp_path: Path) -> None:
    """Table, JSON and drawing hold every contestant; the drawing loads nothing from elsewhere."""
    done = report(a_race())
    console = Console(width=160, file=(shown := io.StringIO()))
    print_report(done, console)
    write_json(done, tmp_path / "race.json")
    write_svg(done, tmp_path / "race.svg")
    texts = (shown.getvalue(), (tmp_path / "race.json").read_text(), (tmp_path / "race.svg").read_text())
    assert all(standing.contestant in text for standing in standings(done) for text in texts)
    assert "met by 11%" in texts[0]
    assert str(Path.cwd()) not in texts[1]
    assert texts[2].count("http") == 1, "the name of the format alone"


def test_callers_are_pooled() -> None:
    """The throughput of several callers is their sum, the quantiles are those of all their answers."""
    both = pooled([[0.001] * 30, [0.003] * 10], seconds=2)
    assert (both.requests, both.throughput, both.p50_s) == (40, 20.0, 0.001)
    assert both.p90_s == pytest.approx(0.003)
