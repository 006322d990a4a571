"""`punctual bench sharing`: compares ways in which texts being decoded can share an engine.

Each arrangement runs the replica's own time slicer and engine in this process. Short texts arrive in an open loop while
long texts are decoded without a pause. Budgets are left out: each text writes a fixed number of tokens, so that every
arrangement has the same work. Arrangements alternate in shuffled rounds, with equal arrivals within a round. Durations
are in seconds.

Continuous batching is bounded, not run. The graphs that optimum exports take one past length for all rows, without
positions or a mask of the past, so rows of different progress cannot share a step. The bound is a step of several rows
of one text with equal progress: the cheapest batch, since its rows also share the encoder's keys and values.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Annotated

import numpy as np
import typer
import uvloop
from rich.console import Console

from deployments.engines.base import Decoder, Seq2SeqEngine
from deployments.engines.host import read_host
from deployments.engines.opening import open_seq2seq_engine
from deployments.replica.writing.beam_search import BeamSearch, SearchRules
from deployments.replica.writing.job import Steps, TextBudget, WritingJob, WritingResult
from deployments.replica.writing.time_slicing import SLICE_S, TimeSlicer
from gateway.model.deadline import Clock
from gateway.model.messages import Failure, Generation, InputReport
from loadtests import options
from loadtests.bench.decoding.folders import Shapes, prepare, shapes
from loadtests.bench.decoding.peer import rules_of
from loadtests.bench.engines import SETTLE_S, WORK, input_text
from loadtests.bench.measuring.machine import Watch, not_quiet
from loadtests.bench.measuring.report import Report, Table, present
from loadtests.bench.measuring.rounds import WARM_UP, Plan, Slot, Spread, Turns, shown, take_turns
from loadtests.client import NoReply, Reply
from loadtests.errors import EngineFailed
from loadtests.offered_load import LoadReport, LoadSettings, Quantiles, offered, summarised

CORES = 2
"""The cores of every arrangement: one slot with 2 threads, or two slots with 1."""
SHORT_SHARE = 0.2
"""The engine utilisation that short texts alone would cause, by default."""
BATCH_ROWS, BATCH_STEPS, WARM_STEPS = 4, 20, 4
NO_DEADLINE_S = 3600.0
STEP_S = 0.01
"""The assumed duration of a remaining step. Deadlines are far, so only the number of steps matters."""
MOST_QUEUED = 10_000
STOP_WITHIN_S = 60.0
ALONE_TIMES = 5


@dataclass(frozen=True)
class Arrangement:
    """A way to share an engine: `slots` texts at once, each on `threads` threads, for time slices of `turn_s`."""

    name: str
    slots: int
    threads: int
    turn_s: float


BASELINE = "one after another"
ARRANGEMENTS = (
    Arrangement(BASELINE, 1, CORES, inf),
    Arrangement("in turns", 1, CORES, SLICE_S),
    Arrangement("two workers, one after another", CORES, 1, inf),
    Arrangement("two workers in turns", CORES, 1, SLICE_S),
)


@dataclass(frozen=True)
class Settings:
    """Length of a turn, tokens read and written per text, and the rate of short texts.

    `rate` is short texts per second; None chooses the rate at which they alone would use `SHORT_SHARE` of the engine's
    time. `longs` are the loads: numbers of long texts decoded at once.
    """

    rounds: int = 5
    seconds: float = 30.0
    warm_up_seconds: float = 5.0
    rate: float | None = None
    longs: tuple[int, ...] = (1, 2)
    long_read: int = 400
    long_written: int = 60
    short_read: int = 60
    short_written: int = 8
    seed: int = 29


@dataclass(frozen=True)
class Text:
    """A text: the token ids to read, and rules that write a fixed number of tokens."""

    token_ids: tuple[int, ...]
    rules: SearchRules


@dataclass(frozen=True)
class Load:
    """A turn's texts, the number of long ones decoded at once, and the arrivals of the short ones."""

    long: Text
    short: Text
    longs: int
    arriving: LoadSettings


@dataclass(frozen=True)
class Sample:
    """One turn's measurement: the short texts' endings, the long texts' latencies, and tokens/s.

    Latency counts from the intended send time for short texts, from submission for long ones. `others` is the share of
    the machine that other processes used.
    """

    short: LoadReport
    long: Quantiles | None
    tokens_per_s: float
    others: float = 0.0

    @property
    def invalid(self) -> str:
        """The reason, if no short or no long text ended within the turn; else empty."""
        return "" if self.short.latency and self.long else "no short or no long text ended in time"


def short_p50(sample: Sample) -> float:
    """The median latency of the short texts."""
    return _found(sample.short.latency).p50_s


def short_p95(sample: Sample) -> float:
    """The 95th percentile of the short texts' latency, by which arrangements are judged."""
    return _found(sample.short.latency).p95_s


def long_p50(sample: Sample) -> float:
    """The median latency of the long texts."""
    return _found(sample.long).p50_s


def tokens_per_s(sample: Sample) -> float:
    """Tokens written per second, by short and long texts together."""
    return sample.tokens_per_s


def _found(quantiles: Quantiles | None) -> Quantiles:
    assert quantiles is not None, "a round that counts has all figures"
    return quantiles


@dataclass(frozen=True)
class Batch:
    """The duration of one step with `rows` rows, and of `rows` steps with one row."""

    round: int
    rows: int
    together_s: float
    apart_s: float

    @property
    def gain(self) -> float:
        """The batch's tokens/s as a multiple of that of single rows."""
        return self.apart_s / self.together_s


@dataclass(frozen=True)
class Run:
    """The checkpoint, host, load and all turns of a run, warm-up included.

    `rate` is short texts per second. `short_s` and `long_s` are a short and a long text's time alone, on all cores.
    """

    checkpoint: str
    host: str
    settings: Settings
    rate: float
    short_s: float
    long_s: float
    turns: Turns[Sample]
    batches: tuple[Batch, ...]
    lasted_s: float


def command(
    checkpoint: Annotated[
        str, typer.Option(help="distilbart-6-6 or pegasus-large (random weights), starter:NAME or a folder")
    ] = "distilbart-6-6",
    rounds: options.Rounds = Settings.rounds,
    seconds: Annotated[float, typer.Option(parser=options.positive, help="of each turn")] = Settings.seconds,
    rate: Annotated[
        float | None,
        typer.Option(
            parser=options.positive,
            help="short texts a second (default: as many as would alone use a fifth of the engine's time)",
        ),
    ] = None,
    longs: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="long texts decoded at once; may be given several times (default: 1, and again with 2)"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="of texts, order and arrivals")] = Settings.seed,
    work: Annotated[Path, typer.Option(help="folder that caches graphs")] = WORK,
    json: options.Json = None,
    markdown: Annotated[Path | None, typer.Option(help="write the tables there")] = None,
) -> None:
    """Compares ways in which texts being decoded can share an engine."""
    loads = tuple(dict.fromkeys(longs or Settings.longs))
    settings = Settings(rounds=rounds, seconds=seconds, rate=rate, longs=loads, seed=seed)
    report = measure(checkpoint, work, settings, options.console)
    raise typer.Exit(present(report, options.console, json=json, markdown=markdown))


def measure(location: str, work: Path, settings: Settings, console: Console) -> Report:
    """Measures all arrangements with one checkpoint; takes minutes. Raises LoadTestError and SourceRefused.

    `location` is an architecture's name, `starter:NAME` or a folder. Its graphs are cached below `work`. Texts are cut
    to the checkpoint's positions; the report states the length.
    """
    started = perf_counter()
    folders = prepare(location, ["int8"], work, CORES, console)
    known = shapes(folders.checkpoint)
    long = _text(known, settings.long_read, settings.long_written, settings.seed)
    short = _text(known, settings.short_read, settings.short_written, settings.seed + 1)
    with console.status("loading, and timing each text alone"):
        engines = {threads: _engine(folders.by_kind["int8"], threads) for threads in (1, CORES)}
        short_s, long_s = (alone_s(engines[CORES], text) for text in (short, long))
    rate = settings.rate or float(f"{SHORT_SHARE / short_s:.2g}")
    load = Load(long, short, 0, LoadSettings(rate, settings.seconds, seed=settings.seed))
    batches: list[Batch] = []
    plan = Plan(
        [one.name for one in ARRANGEMENTS],
        settings.longs,
        settings.rounds,
        settings.seconds,
        settings.warm_up_seconds,
        settings.seed,
    )
    turns = take_turns(plan, partial(_turn, engines, load, batches), console, "long")
    return report_of(
        Run(
            checkpoint=folders.name,
            host=read_host().kind,
            settings=replace(settings, long_read=len(long.token_ids), short_read=len(short.token_ids)),
            rate=rate,
            short_s=short_s,
            long_s=long_s,
            turns=turns,
            batches=tuple(batches),
            lasted_s=perf_counter() - started,
        )
    )


def _text(known: Shapes, read: int, written: int, seed: int) -> Text:
    ids = input_text(known, written, read, seed)
    return Text(ids, rules_of(known.start_id, known.end_id, written))


def _engine(folder: Path, threads: int) -> Seq2SeqEngine:
    try:
        return open_seq2seq_engine("onnx", folder, threads)
    except ValueError as error:
        raise EngineFailed(f"the int8 graphs of {folder.parent.name}: {error}") from None


def _turn(engines: Mapping[int, Seq2SeqEngine], load: Load, batches: list[Batch], slot: Slot, seconds: float) -> Sample:
    """Measures one arrangement beside `slot.load` long texts. Each round's first turn also measures a batch."""
    if len(batches) == slot.round:
        batches.append(batch_of(engines[CORES], load.long, slot.round, BATCH_ROWS, BATCH_STEPS))
    sleep(SETTLE_S)
    arrangement = next(one for one in ARRANGEMENTS if one.name == slot.contestant)
    arriving = replace(load.arriving, seconds=seconds, seed=load.arriving.seed + slot.round)
    watch = Watch()
    seen = uvloop.run(
        shared(engines[arrangement.threads], arrangement, replace(load, longs=slot.load, arriving=arriving))
    )
    return replace(seen, others=watch.use().others)


class TextClient:
    """Submits texts to one time slicer, on the event loop that the slicer was started on."""

    def __init__(self, time_slicer: TimeSlicer, engine: Seq2SeqEngine, load: Load) -> None:
        """Takes a started time slicer."""
        self._time_slicer = time_slicer
        self._engine = engine
        self._load = load
        self.written: list[float] = []
        """The instant of every token, of all texts."""
        self.longs: list[tuple[float, float]] = []
        """The start and end of each finished long text."""
        self.failed: list[str] = []

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Submits one short text for the open loop; ignores body and headers. Raises NoReply."""
        await self._submit("short", self._load.short)
        return Reply(200, {}, b"")

    async def keep_busy(self) -> None:
        """Submits one long text after another until cancelled, or until one fails."""
        with suppress(NoReply):
            while True:
                began = perf_counter()
                await self._submit("long", self._load.long)
                self.longs.append((began, perf_counter()))

    async def _submit(self, name: str, text: Text) -> None:
        result = await self._time_slicer.submit(name, summary_job(self._engine, text, self.written, perf_counter))
        if isinstance(result, Failure):
            self.failed.append(f"{result.kind} {result.detail}".strip())
            raise NoReply(self.failed[-1])


def summary_job(engine: Seq2SeqEngine, text: Text, written: list[float], clock: Clock) -> WritingJob:
    """A job that decodes the text, with a deadline an hour away."""
    budget = TextBudget(clock() + NO_DEADLINE_S, 0.0, clock)
    budget.left_s = text.rules.max_new_tokens * STEP_S
    return WritingJob(budget, decode_steps(engine, text, budget, written))


def decode_steps(engine: Seq2SeqEngine, text: Text, budget: TextBudget, written: list[float]) -> Steps:
    """Decodes a text step by step; the first step also encodes it. Appends the instant of every token to `written`."""
    decoder, search = None, BeamSearch(text.rules)
    while not search.done:
        decoder = decoder or engine.encode(np.asarray(text.token_ids, dtype=np.int64))
        search.feed(decoder.step(*search.pending))
        written.append(budget.clock())
        budget.left_s = (text.rules.max_new_tokens - search.steps) * STEP_S
        yield None
    read, tokens = len(text.token_ids), text.rules.max_new_tokens
    report = Generation("length", budget.steps, tokens, 1, tokens, 1, budget.headroom_s)
    return WritingResult("", report, InputReport(read, read, truncated=False))


async def shared(engine: Seq2SeqEngine, arrangement: Arrangement, load: Load) -> Sample:
    """Runs one turn until its last short text has ended. Raises EngineFailed if a text fails.

    Tokens and finished long texts count only while short texts arrive.
    """
    time_slicer = TimeSlicer(arrangement.slots, perf_counter, MOST_QUEUED, slice_s=arrangement.turn_s)
    time_slicer.start()
    client = TextClient(time_slicer, engine, load)
    try:
        async with _kept_busy(client, load.longs):
            began = perf_counter()
            shots = await offered(client, [b""], load.arriving, perf_counter)
    finally:
        await time_slicer.stop(STOP_WITHIN_S)
    if client.failed:
        raise EngineFailed(f"{arrangement.name}: {len(client.failed)} texts failed: {client.failed[0]}")
    seconds = load.arriving.seconds
    tokens = sum(0 <= at - began < seconds for at in client.written)
    took_s = [ended - start for start, ended in client.longs if ended - began < seconds]
    return Sample(summarised(shots, load.arriving), Quantiles.of(took_s), tokens / seconds)


@asynccontextmanager
async def _kept_busy(client: TextClient, longs: int) -> AsyncIterator[None]:
    """Keeps `longs` long texts running. Cancels them at the end."""
    tasks = [asyncio.create_task(client.keep_busy()) for _ in range(longs)]
    try:
        yield None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def alone_s(engine: Seq2SeqEngine, text: Text, clock: Clock = perf_counter) -> float:
    """The median time of one text that has the engine to itself. Blocking."""
    took = []
    for _ in range(1 + ALONE_TIMES):  # the first is slower
        began, job = clock(), summary_job(engine, text, [], clock)
        while not job.step():
            pass
        took.append(clock() - began)
    return median(took[1:])


def batch_of(
    engine: Seq2SeqEngine, text: Text, number: int, rows: int, steps: int, clock: Clock = perf_counter
) -> Batch:
    """Compares one step of `rows` rows with `rows` steps of one row, at equal progress. Blocking.

    All rows of the batch belong to one text; each single row belongs to its own. The order alternates.
    """
    start = np.array([text.rules.decoder_start_token_id])
    ids = np.asarray(text.token_ids, dtype=np.int64)

    def step_s(decoder: Decoder, rows: int) -> float:
        began = clock()
        decoder.step(np.repeat(start, rows), np.arange(rows))
        return clock() - began

    batch, *singles = (engine.encode(ids) for _ in range(1 + rows))
    for decoder in (batch, *singles):
        step_s(decoder, 1)
    batch.step(np.repeat(start, rows), np.zeros(rows, dtype=np.int64))  # copies its one row to `rows` rows
    for decoder in singles:
        step_s(decoder, 1)
    together, apart = [], []
    for at in range(WARM_STEPS + steps):
        if at % 2:
            together.append(step_s(batch, rows))
        apart.append(sum(step_s(decoder, 1) for decoder in singles))
        if not at % 2:
            together.append(step_s(batch, rows))
    return Batch(number, rows, median(together[WARM_STEPS:]), median(apart[WARM_STEPS:]))


def report_of(run: Run) -> Report:
    """Two tables per number of long texts, the conditions and judgements. There is no target, so no verdict."""
    judged = [one for longs in run.settings.longs if (one := judgement(run.turns, longs))]
    return Report(
        tables=[table for longs in run.settings.longs for table in _tables(run, longs)],
        document={**vars(run), "arrangements": ARRANGEMENTS},
        remarks=[conditions(run), batch_sentence(run.batches), *judged],
        cautions=cautions(run),
    )


def judgement(turns: Turns[Sample], longs: int) -> str | None:
    """The arrangement with the lowest p95 of short texts beside `longs` long ones, its cost, and the runner-up.

    Compares medians of ratios within rounds, which a slow minute does not affect. None if no round counts.
    """
    ratios = {one.name: turns.ratio(one.name, BASELINE, longs, short_p95) for one in ARRANGEMENTS}
    measured = {name: ratio for name, ratio in ratios.items() if ratio}
    if not measured:
        return None
    best, following = sorted(measured, key=lambda name: measured[name].median)[:2]
    by_name = {one.name: turns.by_round(one.name, longs, short_p95) for one in ARRANGEMENTS}
    rounds = turns.rounds(longs)
    first_in = sum(by_name[best][number] == min(one[number] for one in by_name.values()) for number in rounds)
    sentence = (
        f"beside {longs} long text{'' if longs == 1 else 's'}: {best} has the lowest p95 of short texts, "
        f"{median(by_name[best].values()) * 1000:.0f} ms, in {first_in} of {len(rounds)} rounds"
    )
    if best != BASELINE:
        sentence += f": {shown(measured[best])} × that of {BASELINE}, and "
        sentence += f"{shown(turns.ratio(best, BASELINE, longs, tokens_per_s))} × its tokens/s"
    return f"{sentence}; next: {following}, {shown(measured[following])} ×"


def batch_sentence(batches: Sequence[Batch]) -> str:
    """The upper bound of continuous batching's gain, over all rounds but the warm-up."""
    counted = [one for one in batches if one.round != WARM_UP]
    gain = Spread.of([one.gain for one in counted])
    if gain is None:
        return "a batch: not measured"
    rows = counted[0].rows
    together_ms = median(one.together_s for one in counted) * 1000
    apart_ms = median(one.apart_s for one in counted) * 1000
    return (
        f"a batch of {rows} would write at most {shown(gain)} × the tokens of {rows} texts in turns: "
        f"{together_ms:.1f} ms for a step of {rows} rows, {apart_ms:.1f} ms for {rows} steps of one; the graphs cannot "
        "batch texts of different progress"
    )


def cautions(run: Run) -> list[str]:
    """Warnings: rounds that do not count, a late generator, other processes on the machine."""
    found = run.turns.cautions("long")
    counted = _counted(run)
    bound_s = LoadSettings.lag_bound_s
    late = [one.short.lag.p99_s for one in counted if one.short.lag and one.short.lag.p99_s > bound_s]
    if late:
        found.append(
            f"short texts were sent late in {len(late)} of {len(counted)} turns, p99 up to {max(late) * 1000:.1f} ms"
        )
    worst = max((one.others for one in counted), default=0.0)
    return found + [f"in the worst turn, {caution}" for caution in not_quiet(worst)]


def conditions(run: Run) -> str:
    """The load and the measurement in one sentence."""
    settings = run.settings
    rounds = " and ".join(str(len(run.turns.rounds(longs))) for longs in settings.longs)
    shorts = [one.short.offered for one in _counted(run)] or [0]
    offered_shorts = " to ".join(map(str, sorted({min(shorts), max(shorts)})))
    return (
        f"long texts read {settings.long_read} tokens and write {settings.long_written}, short ones read "
        f"{settings.short_read} and write {settings.short_written} and arrive at {run.rate:g}/s, Poisson and open "
        f"loop; turns of {settings.seconds:g} s with {offered_shorts} short texts; alone, a short one takes "
        f"{run.short_s * 1000:.0f} ms and a long one {run.long_s * 1000:.0f} ms; median (minimum to maximum) of the "
        f"rounds that count: {rounds} of {settings.rounds}; × is the ratio to {BASELINE} within each round"
    )


def _counted(run: Run) -> list[Sample]:
    """The samples of all rounds that count."""
    return [turn.sample for turn in run.turns.taken if turn.slot.round in run.turns.rounds(turn.slot.load)]


def _tables(run: Run, longs: int) -> list[Table]:
    """The short texts' latency beside `longs` long ones, and the long texts' latency with all tokens/s."""
    texts = "one long text at a time is" if longs == 1 else f"{longs} long texts at a time are"
    what = f"{run.checkpoint} on {run.host}, while {texts} written"
    return [
        Table(
            f"short texts: {what}",
            ["arrangement", "p50, ms", "×", "p95, ms", "×"],
            _rows(run.turns, longs, {short_p50: (".0f", 1000), short_p95: (".0f", 1000)}),
        ),
        Table(
            f"long texts, and all tokens: {what}",
            ["arrangement", "long p50, ms", "×", "tokens/s", "×"],
            _rows(run.turns, longs, {long_p50: (".0f", 1000), tokens_per_s: (".1f", 1)}),
        ),
    ]


def _rows(
    turns: Turns[Sample], longs: int, measures: Mapping[Callable[[Sample], float], tuple[str, float]]
) -> list[list[str]]:
    """One row per arrangement: each figure with its ratio to the baseline's."""
    rows = []
    for name in (one.name for one in ARRANGEMENTS):
        row = [name]
        for measure, (form, scale) in measures.items():
            row.append(shown(turns.spread(name, longs, measure), form, scale))
            row.append("1" if name == BASELINE else shown(turns.ratio(name, BASELINE, longs, measure)))
        rows.append(row)
    return rows
