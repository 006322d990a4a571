"""How an engine should be shared: ratios within rounds, verdicts, what is shown, and the load over a slow engine."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fake_engines import in_steps
from fakes import FakeClock
from rich.console import Console

from deployments.engines.base import Logits, TokenIds
from deployments.replica.summarize.job import SummaryJob, TextBudget
from deployments.replica.summarize.time_slicing import TURN_S, TimeSlicer
from loadtests.errors import EngineFailed
from loadtests.offered_load import LoadSettings, Quantiles
from loadtests.sharing import SharingReport, SharingSettings
from loadtests.sharing_commands import sharing_arguments
from loadtests.sharing_load import Load, Seen, Text, alone_s, batch_turn, shared, way
from loadtests.sharing_report import cautions, markdown, print_sharing, rows, verdicts, write_json
from loadtests.sharing_turns import (
    ARRANGEMENTS,
    BASELINE,
    CORES,
    Arrangement,
    BatchTurn,
    SharingTurn,
    SharingTurns,
    batch_sentence,
    long_p50,
    short_p50,
    short_p95,
    tokens_per_s,
    verdict,
)
from loadtests.turns import WARM_UP, Spread

QUIET = Quantiles(0.0001, 0.0002, 0.0003, 0.0004)
IN_TURNS = "in turns"
START, END = 2, 3
VOCABULARY = 12
BATCHES = tuple(BatchTurn(number, 4, 0.020, 0.030 + 0.010 * number) for number in range(4))


def latencies(p50_s: float) -> Quantiles:
    """Of which the 95th percentile is twice the median."""
    return Quantiles(p50_s, 2 * p50_s, 3 * p50_s, 4 * p50_s)


def a_turn(number: int, arrangement: str, short_s: float, tokens: float, longs: int = 1) -> SharingTurn:
    """A turn on a quiet machine, whose long texts take a second."""
    return SharingTurn(number, longs, arrangement, latencies(short_s), latencies(1.0), 20, tokens, QUIET, 0.0)


def taken(*ratios: float, longs: int = 1) -> SharingTurns:
    """A warm-up and so many rounds, each slower than the one before; in turns, short texts take so much of that."""
    turns = []
    for number in range(WARM_UP, len(ratios) + 1):
        slow_s = 0.5 * (1 + number)
        for one in ARRANGEMENTS:
            fast = one.name == IN_TURNS and number != WARM_UP
            ratio, tokens = (ratios[number - 1], 95.0) if fast else (1.0 + ARRANGEMENTS.index(one) / 100, 100.0)
            turns.append(a_turn(number, one.name, slow_s * ratio, tokens, longs))
    return SharingTurns(tuple(turns))


def a_report(turns: SharingTurns) -> SharingReport:
    """Of these turns on a host."""
    settings = SharingSettings(rounds=3, longs=(1,))
    return SharingReport("student", "a host", settings, 1.5, 0.13, 1.1, turns, BATCHES, 60.0)


@dataclass
class SlowEngine:
    """A `Seq2SeqEngine` whose every step takes `step_s`, of however many rows, and that likes to end at once."""

    step_s: float = 0.0
    fails: bool = False
    rows: list[int] = field(default_factory=list)

    def encode(self, token_ids: TokenIds) -> SlowEngine:
        """Reads in no time; it is its own decoder."""
        assert len(token_ids)
        return self

    def step(self, tokens: TokenIds, origins: TokenIds) -> Logits:
        """Favours the end."""
        assert len(tokens) == len(origins)
        if self.fails:
            raise ArithmeticError
        if self.step_s:
            threading.Event().wait(self.step_s)
        self.rows.append(len(tokens))
        logits = np.zeros((len(tokens), VOCABULARY), dtype=np.float32)
        logits[:, END] = 1
        return logits


def a_text(tokens: int) -> Text:
    """One that writes so many."""
    return Text.of((7, 8, END), tokens, START, END)


def seen(engine: SlowEngine, arrangement: Arrangement, longs: int = 1) -> Seen:
    """A turn of 0.6 s over it: long texts of 40 steps, short ones of 2."""
    load = Load(a_text(40), a_text(2), longs, LoadSettings(rate=25, seconds=0.6, seed=3))
    return asyncio.run(shared(engine, arrangement, load))


def named(name: str) -> Arrangement:
    """The arrangement of that name."""
    return next(one for one in ARRANGEMENTS if one.name == name)


def test_every_arrangement_has_the_same_cores() -> None:
    """As threads of a lane or as lanes; two of them know turns, as replicas have them, and the first does not."""
    assert {one.slots * one.threads for one in ARRANGEMENTS} == {CORES}
    assert sorted(one.turn_s for one in ARRANGEMENTS) == [TURN_S, TURN_S, float("inf"), float("inf")]
    assert ARRANGEMENTS[0].name == BASELINE and ARRANGEMENTS[0].slots == 1 and ARRANGEMENTS[0].turn_s == float("inf")


def test_ratios_are_taken_within_each_round() -> None:
    """The warm-up does not count, and that later rounds were slower for all changes no ratio."""
    turns = taken(0.2, 0.3, 0.4)
    assert turns.rounds(1) == [1, 2, 3] and turns.rounds(2) == []
    ratio, found = turns.ratio(IN_TURNS, 1, short_p95), turns.spread(IN_TURNS, 1, short_p95)
    assert ratio is not None and (ratio.median, ratio.low, ratio.high) == pytest.approx((0.3, 0.2, 0.4))
    assert found is not None and (found.median, found.low, found.high) == pytest.approx((0.9, 0.4, 1.6))
    assert turns.spread(BASELINE, 1, short_p50) == Spread(1.5, 1.0, 2.0)
    assert turns.spread(IN_TURNS, 1, long_p50) == Spread(1.0, 1.0, 1.0)
    assert turns.spread(IN_TURNS, 2, tokens_per_s) is None and turns.ratio(IN_TURNS, 2, tokens_per_s) is None


def test_a_round_without_all_figures_does_not_count() -> None:
    """Not for the others either; a reader is told."""
    turns = taken(0.2, 0.3, 0.4)
    short = tuple(
        replace(one, long=None) if (one.round, one.arrangement) == (2, BASELINE) else one for one in turns.taken
    )
    assert SharingTurns(short).rounds(1) == [1, 3]
    (said,) = cautions(a_report(SharingTurns(short)))
    assert said.startswith("round 2 does not count beside 1 long: in one after another")


def test_the_verdict_names_the_lowest_p95_and_its_price() -> None:
    """By the median ratio; in how many rounds it was the lowest is told too."""
    found = verdict(taken(0.2, 0.3, 1.5), 1)
    assert found is not None and (found.best, found.first_in, found.rounds) == (IN_TURNS, 2, 3)
    assert found.sentence() == (
        "beside 1 long text: in turns has the lowest p95 of short texts, 900 ms, in 2 of 3 rounds: "
        "0.30 × (0.20 to 1.50) that of one after another, with 5% fewer tokens/s, 0.95 × (0.95 to 0.95); "
        "next: one after another, 1.00 × (1.00 to 1.00)"
    )
    calm = verdict(taken(0.2, 0.3, 0.4), 1)
    assert calm is not None and calm.clear and not found.clear
    assert verdict(SharingTurns(()), 1) is None


def test_the_verdict_may_be_to_change_nothing() -> None:
    """Where nothing beats one after another."""
    found = verdict(taken(1.2, 1.2, 1.2, longs=2), 2)
    assert found is not None and found.best == BASELINE
    assert found.sentence() == (
        "beside 2 long texts: one after another has the lowest p95 of short texts, 3000 ms, in 3 of 3 rounds; "
        "next: two workers, one after another, 1.02 × (1.02 to 1.02)"
    )


def test_the_gain_of_a_batch_leaves_the_warm_up_out() -> None:
    """And it says that it is a bound."""
    said = batch_sentence(BATCHES)
    assert said.startswith("a batch of 4 would write at most 2.50 × (2.00 to 3.00) the tokens of 4 texts in turns: ")
    assert "20.0 ms for a step of 4 rows, 50.0 ms for 4 steps of one" in said
    assert batch_sentence(BATCHES[:1]) == "a batch: not measured"


@pytest.mark.parametrize("width", [80, 200])
def test_a_report_is_shown_and_written(tmp_path: Path, width: int) -> None:
    """A table, the load, the bound and the verdict, wherever it goes."""
    report = a_report(taken(0.2, 0.3, 0.4))
    console = Console(width=width, file=(shown := io.StringIO()))
    print_sharing(report, console)
    write_json(report, tmp_path / "sharing.json")
    assert len(rows(report, 1)) == len(ARRANGEMENTS)
    assert rows(report, 1)[1][3:5] == ["900 (400 to 1600)", "0.30 (0.20 to 0.40)"] and rows(report, 1)[0][4] == "1"
    for text in (" ".join(shown.getvalue().split()), markdown(report)):
        assert "student on a host: short texts while one long text" in text
        assert "arrive at 1.5/s" in text and "with 20 short texts" in text and "at most 2.50 ×" in text
        assert "in turns has the lowest p95" in text
    written = json.loads((tmp_path / "sharing.json").read_text())
    assert len(written["turns"]["taken"]) == 4 * len(ARRANGEMENTS) and written["arrangements"][0]["turn_s"] is None
    assert written["verdicts"][0]["best"] == IN_TURNS and written["batch"] == batch_sentence(BATCHES)
    assert verdicts(a_report(SharingTurns(()))) == []


def test_a_late_generator_and_a_busy_machine_are_told() -> None:
    """Of the turns that count."""
    turns = taken(0.2, 0.3, 0.4).taken
    odd = tuple(replace(one, others=0.25, lag=latencies(0.006)) if one.round in (0, 2) else one for one in turns)
    assert cautions(a_report(SharingTurns(odd))) == [
        "short texts were sent late in 4 of 12 turns, p99 up to 18.0 ms",
        "the machine was not quiet: up to 25% of it was busy with something else, more than 10% in 4 of 12 turns",
    ]


def test_a_text_writes_exactly_as_many_tokens_as_it_is_told() -> None:
    """Even on an engine that would end at once; nothing is left to be run after the last."""
    instants: list[float] = []
    room = TextBudget(100.0, 0.0, lambda: 1.0)
    condensing, engine = SummaryJob(room, way(SlowEngine(), a_text(5), room, instants)), SlowEngine()
    left = []
    while not condensing.step():
        left.append(room.left_s)
    assert instants == [1.0] * 5 and left == pytest.approx([0.04, 0.03, 0.02, 0.01, 0.0])
    assert alone_s(engine, a_text(3)) < 1 and set(engine.rows) == {1} and len(engine.rows) % 3 == 0


def test_in_turns_a_short_text_does_not_wait_for_the_end_of_a_long_one() -> None:
    """One after another it does: for half of it, and here that is many times its own length."""
    apart, shared_out = (seen(SlowEngine(step_s=0.005), named(name)) for name in (BASELINE, IN_TURNS))
    for one in (apart, shared_out):
        assert one.short.latency is not None and one.long is not None and one.tokens_per_s > 0
        assert one.short.offered == apart.short.offered
    assert shared_out.short.latency is not None and apart.short.latency is not None
    assert shared_out.short.latency.p50_s < 0.7 * apart.short.latency.p50_s


@pytest.mark.asyncio
async def test_without_turns_a_text_is_seen_through_before_the_next() -> None:
    """What the baseline is: an interleaver whose turns never end early."""
    clock, ran = FakeClock(), list[str]()

    def step(name: str) -> None:
        ran.append(name)
        clock.advance(2 * TURN_S)

    time_slicer = TimeSlicer(1, clock, 9, turn_s=float("inf"))
    time_slicer.start()
    texts = [in_steps(TextBudget(clock() + 600, 0.0, clock), 5, partial(step, name)) for name in "ab"]
    await asyncio.gather(*(time_slicer.submit(name, text) for name, text in zip("ab", texts, strict=True)))
    await time_slicer.stop(60)
    assert "".join(ran) == "aaaaabbbbb" and time_slicer.totals.turns == 2


@pytest.mark.parametrize("arrangement", ARRANGEMENTS, ids=lambda one: one.name)
def test_an_engine_that_fails_ends_the_measurement(arrangement: Arrangement) -> None:
    """With what it was, and without a loop of failures."""
    with pytest.raises(EngineFailed, match=rf"{arrangement.name}: \d+ texts failed: engine ArithmeticError"):
        seen(SlowEngine(fails=True), arrangement, longs=2)


def test_a_batch_is_measured_against_as_many_steps() -> None:
    """An engine that takes as long for four rows as for one gains nearly four times, were the clock exact."""
    engine = SlowEngine(step_s=0.004)
    found = batch_turn(engine, a_text(8), 2, rows=4, steps=6)
    assert (found.round, found.rows) == (2, 4) and found.gain > 1.5
    assert engine.rows.count(4) == 1 + 10 and engine.rows.count(1) == 1 + 2 * 4 + 10 * 4


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser()
    sharing_arguments(parser)
    return parser.parse_args(arguments)


def test_arguments_that_measure_nothing_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A rate is chosen where none is given."""
    options = parsed(["--longs", "1", "--longs", "3", "--seconds", "2.5"])
    assert (options.longs, options.seconds, options.rate, options.rounds) == ([1, 3], 2.5, None, 5)
    for wrong in (["--rounds", "0"], ["--seconds", "inf"], ["--rate", "-1"], ["--longs", "none"]):
        with pytest.raises(SystemExit):
            parsed(wrong)
        assert "must be a" in capsys.readouterr().err
