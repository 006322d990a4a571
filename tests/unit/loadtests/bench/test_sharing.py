"""How an engine should be shared: ratios within rounds, verdicts, the report, and the load over a slow engine."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import typer
from fake_engines import in_steps
from fakes import FakeClock
from rich.console import Console
from typer.testing import CliRunner
from waiting import take_up

from deployments.engines.base import Logits, TokenIds
from deployments.replica.writing.job import TextBudget, WritingJob
from deployments.replica.writing.time_slicing import SLICE_S, TimeSlicer
from loadtests.bench import sharing
from loadtests.bench.decoding.peer import rules_of
from loadtests.bench.measuring.report import present
from loadtests.bench.measuring.rounds import WARM_UP, Slot, Turn, Turns
from loadtests.bench.sharing import (
    ARRANGEMENTS,
    BASELINE,
    CORES,
    Arrangement,
    Batch,
    Load,
    Run,
    Sample,
    Settings,
    Text,
    alone_s,
    batch_of,
    batch_sentence,
    cautions,
    decode_steps,
    judgement,
    long_p50,
    report_of,
    shared,
    short_p50,
    short_p95,
    tokens_per_s,
)
from loadtests.errors import EngineFailed
from loadtests.offered_load import LoadReport, LoadSettings, Quantiles, summarised

QUIET = Quantiles(0.0001, 0.0002, 0.0003, 0.0004)
IN_TURNS = "in turns"
START, END = 2, 3
VOCABULARY = 12
BATCHES = tuple(Batch(number, 4, 0.020, 0.030 + 0.010 * number) for number in range(4))


def latencies(p50_s: float) -> Quantiles:
    """Quantiles whose 95th percentile is twice the median."""
    return Quantiles(p50_s, 2 * p50_s, 3 * p50_s, 4 * p50_s)


def shorts(p50_s: float) -> LoadReport:
    """Twenty short texts, sent in time."""
    nothing = summarised([], LoadSettings(rate=1.5, seconds=30))
    return replace(nothing, offered=20, latency=latencies(p50_s), lag=QUIET)


def a_turn(number: int, arrangement: str, short_s: float, tokens: float, longs: int = 1) -> Turn[Sample]:
    """A turn on a quiet machine, whose long texts take a second."""
    return Turn(Slot(number, longs, arrangement), Sample(shorts(short_s), latencies(1.0), tokens))


def taken(*ratios: float, longs: int = 1) -> Turns[Sample]:
    """A warm-up and a round for each ratio, each slower than the last; time slicing gives short texts that ratio."""
    turns = []
    for number in range(WARM_UP, len(ratios) + 1):
        slow_s = 0.5 * (1 + number)
        for one in ARRANGEMENTS:
            fast = one.name == IN_TURNS and number != WARM_UP
            ratio, tokens = (ratios[number - 1], 95.0) if fast else (1.0 + ARRANGEMENTS.index(one) / 100, 100.0)
            turns.append(a_turn(number, one.name, slow_s * ratio, tokens, longs))
    return Turns(tuple(turns))


def changed(turns: Turns[Sample], which: Callable[[Slot], bool], change: Callable[[Sample], Sample]) -> Turns[Sample]:
    """The turns, with some of them changed."""
    return Turns(tuple(replace(one, sample=change(one.sample)) if which(one.slot) else one for one in turns.taken))


def a_run(turns: Turns[Sample]) -> Run:
    """A run of these turns."""
    return Run("student", "a host", Settings(rounds=3, longs=(1,)), 1.5, 0.13, 1.1, turns, BATCHES, 60.0)


@dataclass
class SlowEngine:
    """A `Seq2SeqEngine` whose every step takes `step_s` of the clock for any rows, and that favours the end token.

    A step occupies its thread for `busy_s`. `steps` records each step in order: its text's number and its rows.
    """

    clock: FakeClock = field(default_factory=FakeClock)
    step_s: float = 0.0
    busy_s: float = 0.0
    fails: bool = False
    texts: int = 0
    steps: list[tuple[int, int]] = field(default_factory=list)

    def encode(self, token_ids: TokenIds) -> SlowDecoder:
        """Reads in no time."""
        assert len(token_ids)
        self.texts += 1
        return SlowDecoder(self, self.texts)


@dataclass
class SlowDecoder:
    """One text of a slow engine."""

    engine: SlowEngine
    number: int

    def step(self, tokens: TokenIds, origins: TokenIds) -> Logits:
        """Favours the end token."""
        assert len(tokens) == len(origins)
        if self.engine.fails:
            raise ArithmeticError
        self.engine.clock.advance(self.engine.step_s)
        take_up(self.engine.busy_s)
        self.engine.steps.append((self.number, len(tokens)))
        logits = np.zeros((len(tokens), VOCABULARY), dtype=np.float32)
        logits[:, END] = 1
        return logits


def a_text(tokens: int) -> Text:
    """A text that is to be written with this many tokens."""
    return Text((7, 8, END), rules_of(START, END, tokens))


def seen(engine: SlowEngine, arrangement: Arrangement, longs: int = 1) -> Sample:
    """A turn of 0.6 s over the engine: long texts of 40 steps, short ones of 2."""
    load = Load(a_text(40), a_text(2), longs, LoadSettings(rate=25, seconds=0.6, seed=3))
    return asyncio.run(shared(engine, arrangement, load))


def named(name: str) -> Arrangement:
    """The arrangement of that name."""
    return next(one for one in ARRANGEMENTS if one.name == name)


def test_every_arrangement_has_the_same_cores() -> None:
    """Every arrangement uses an equal number of cores; only the two with time slicing use a replica's slice."""
    assert {one.slots * one.threads for one in ARRANGEMENTS} == {CORES}
    assert sorted(one.turn_s for one in ARRANGEMENTS) == [SLICE_S, SLICE_S, float("inf"), float("inf")]
    assert ARRANGEMENTS[0].name == BASELINE and ARRANGEMENTS[0].slots == 1 and ARRANGEMENTS[0].turn_s == float("inf")


def figures(turns: Turns[Sample], measure: Callable[[Sample], float], arrangement: str = IN_TURNS) -> list[float]:
    """The median, minimum and maximum of an arrangement's measure beside one long text."""
    found = turns.spread(arrangement, 1, measure)
    assert found is not None
    return [found.median, found.low, found.high]


def test_each_measure_is_of_what_it_says() -> None:
    """Each measure is taken over the counted rounds, without the warm-up."""
    turns = taken(0.2, 0.3, 0.4)
    assert turns.rounds(1) == [1, 2, 3] and turns.rounds(2) == []
    assert figures(turns, short_p95) == pytest.approx([0.9, 0.4, 1.6])
    assert figures(turns, short_p50, BASELINE) == [1.5, 1.0, 2.0]
    assert figures(turns, long_p50) == [1.0, 1.0, 1.0] and figures(turns, tokens_per_s) == [95.0, 95.0, 95.0]


def test_a_round_without_all_figures_does_not_count() -> None:
    """A round in which one arrangement lacks figures does not count for any; a caution says so."""
    short = changed(
        taken(0.2, 0.3, 0.4), lambda slot: slot == Slot(2, 1, BASELINE), lambda one: replace(one, long=None)
    )
    assert short.rounds(1) == [1, 3]
    (said,) = cautions(a_run(short))
    assert said.startswith(
        "one after another at 1 long: no short or no long text ended in time; round 2 does not count"
    )


def test_the_judgement_names_the_lowest_p95_and_its_price() -> None:
    """The judgement names the arrangement with the lowest p95 by median ratio, and what it costs in tokens/s."""
    assert judgement(taken(0.2, 0.3, 1.5), 1) == (
        "beside 1 long text: in turns has the lowest p95 of short texts, 900 ms, in 2 of 3 rounds: "
        "0.30 (0.20 to 1.50) × that of one after another, and 0.95 (0.95 to 0.95) × its tokens/s; "
        "next: one after another, 1.00 (1.00 to 1.00) ×"
    )
    assert "in 3 of 3 rounds" in str(judgement(taken(0.2, 0.3, 0.4), 1))
    assert judgement(Turns(()), 1) is None


def test_the_judgement_may_be_to_change_nothing() -> None:
    """If nothing beats the baseline, the judgement is to change nothing."""
    assert judgement(taken(1.2, 1.2, 1.2, longs=2), 2) == (
        "beside 2 long texts: one after another has the lowest p95 of short texts, 3000 ms, in 3 of 3 rounds; "
        "next: two workers, one after another, 1.02 (1.02 to 1.02) ×"
    )


def test_the_gain_of_a_batch_leaves_the_warm_up_out() -> None:
    """The gain of a batch is computed without the warm-up and stated as an upper bound."""
    said = batch_sentence(BATCHES)
    assert said.startswith("a batch of 4 would write at most 2.50 (2.00 to 3.00) × the tokens of 4 texts in turns: ")
    assert "20.0 ms for a step of 4 rows, 50.0 ms for 4 steps of one" in said
    assert batch_sentence(BATCHES[:1]) == "a batch: not measured"


def test_a_report_is_shown_and_written(tmp_path: Path) -> None:
    """A report has its tables, the load, the bound and the judgement, at the terminal and in its files."""
    report = report_of(a_run(taken(0.2, 0.3, 0.4)))
    short, long = report.tables
    assert len(short.rows) == len(long.rows) == len(ARRANGEMENTS)
    assert short.rows[1][3:5] == ["900 (400 to 1600)", "0.30 (0.20 to 0.40)"] and short.rows[0][4] == "1"
    assert long.rows[1][3:5] == ["95.0 (95.0 to 95.0)", "0.95 (0.95 to 0.95)"]
    console = Console(width=80, file=(shown := io.StringIO()))
    assert present(report, console, json=tmp_path / "sharing.json", markdown=tmp_path / "sharing.md") == 0
    for text in (" ".join(shown.getvalue().split()), (tmp_path / "sharing.md").read_text()):
        assert "student on a host, while one long text at a time is written" in text
        assert "arrive at 1.5/s" in text and "with 20 short texts" in text and "at most 2.50 (" in text
        assert "in turns has the lowest p95" in text
    written = json.loads((tmp_path / "sharing.json").read_text())
    assert len(written["turns"]["taken"]) == 4 * len(ARRANGEMENTS) and written["arrangements"][0]["turn_s"] is None
    assert batch_sentence(BATCHES) in written["remarks"] and len(written["remarks"]) == 3
    assert len(report_of(a_run(Turns(()))).remarks) == 2, "nothing is judged where no round counts"


def test_a_late_generator_and_a_busy_machine_are_told() -> None:
    """Cautions name late sends and a busy machine in counted turns."""

    def odd(sample: Sample) -> Sample:
        return replace(sample, others=0.25, short=replace(sample.short, lag=latencies(0.006)))

    assert cautions(a_run(changed(taken(0.2, 0.3, 0.4), lambda slot: slot.round in (0, 2), odd))) == [
        "short texts were sent late in 4 of 12 turns, p99 up to 18.0 ms",
        "in the worst turn, the machine was not quiet: 25% of it was busy with something else",
    ]


def test_a_text_writes_exactly_as_many_tokens_as_it_is_told() -> None:
    """A text is written with exactly the requested number of tokens, even if the engine would end at once."""
    instants: list[float] = []
    room = TextBudget(100.0, 0.0, lambda: 1.0)
    job, engine = WritingJob(room, decode_steps(SlowEngine(), a_text(5), room, instants)), SlowEngine(step_s=0.25)
    left = []
    while not job.step():
        left.append(room.left_s)
    assert instants == [1.0] * 5 and left == pytest.approx([0.04, 0.03, 0.02, 0.01, 0.0])
    assert alone_s(engine, a_text(3), engine.clock) == pytest.approx(0.75)
    assert [rows for _, rows in engine.steps] == [1] * 3 * engine.texts


def test_in_turns_a_short_text_does_not_wait_for_the_end_of_a_long_one() -> None:
    """With time slicing, steps of a short text run between those of a long one; without it they never do."""
    offered, split = [], []
    for name in (BASELINE, IN_TURNS):
        engine = SlowEngine(busy_s=0.002)
        sample = seen(engine, named(name))
        assert sample.short.latency is not None  # whether a long text ends in the turn depends on the machine
        offered.append(sample.short.offered)
        stretches = [number for number, _ in groupby(number for number, _ in engine.steps)]
        split.append(len(stretches) - len(set(stretches)))
    assert offered[0] == offered[1] and split[0] == 0 and split[1] > 0


@pytest.mark.asyncio
async def test_without_turns_a_text_is_seen_through_before_the_next() -> None:
    """The baseline, a time slicer with endless slices, finishes each text before the next."""
    clock, ran = FakeClock(), list[str]()

    def step(name: str) -> None:
        ran.append(name)
        clock.advance(2 * SLICE_S)

    time_slicer = TimeSlicer(1, clock, 9, slice_s=float("inf"))
    time_slicer.start()
    texts = [in_steps(TextBudget(clock() + 600, 0.0, clock), 5, partial(step, name)) for name in "ab"]
    await asyncio.gather(*(time_slicer.submit(name, text) for name, text in zip("ab", texts, strict=True)))
    await time_slicer.stop(60)
    assert "".join(ran) == "aaaaabbbbb" and time_slicer.totals.turns == 2


@pytest.mark.parametrize("arrangement", ARRANGEMENTS, ids=lambda one: one.name)
def test_an_engine_that_fails_ends_the_measurement(arrangement: Arrangement) -> None:
    """An engine that fails ends the measurement with its error."""
    with pytest.raises(EngineFailed, match=rf"{arrangement.name}: \d+ texts failed: engine ArithmeticError"):
        seen(SlowEngine(fails=True), arrangement, longs=2)


def test_a_batch_is_measured_against_as_many_steps() -> None:
    """A batch of four rows gains four times if the engine takes as long for four rows as for one."""
    engine = SlowEngine(step_s=0.25)
    found = batch_of(engine, a_text(8), 2, rows=4, steps=6, clock=engine.clock)
    assert found == Batch(2, rows=4, together_s=0.25, apart_s=1.0) and found.gain == 4
    rows = [rows for _, rows in engine.steps]
    assert rows.count(4) == 1 + 10 and rows.count(1) == 1 + 2 * 4 + 10 * 4


def test_arguments_that_measure_nothing_are_refused() -> None:
    """Impossible arguments are refused at the command line, and the option is named."""
    app = typer.Typer()
    app.command()(sharing.command)
    for wrong in (["--rounds", "0"], ["--seconds", "inf"], ["--rate", "-1"], ["--longs", "none"]):
        refused = CliRunner().invoke(app, wrong, env={"COLUMNS": "200"})
        assert refused.exit_code == 2 and wrong[0] in refused.output
