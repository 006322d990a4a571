"""`punctual bench sharing`: how texts that are written step by step should share an engine.

Each arrangement drives the replica's own interleaver over the engine in this process: short texts arrive in an open
loop while long ones are written without a pause. Arrangements alternate in shuffled rounds, with equal arrivals within
a round. `sharing_turns` says what was found, and `sharing_report` shows it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import psutil
import uvloop
from rich.console import Console
from rich.progress import Progress

from deployments.engines.base import Seq2SeqEngine
from deployments.engines.host import read_host
from deployments.engines.opening import open_seq2seq_engine
from loadtests.bench.machine import cpu_seconds
from loadtests.decoding_folders import Shapes, prepare, shapes
from loadtests.decoding_race import SETTLE_S, DecodingSettings, input_text
from loadtests.errors import EngineFailed
from loadtests.offered_load import LoadSettings
from loadtests.sharing_load import Load, Text, alone_s, batch_turn, shared
from loadtests.sharing_turns import ARRANGEMENTS, CORES, BatchTurn, SharingTurn, SharingTurns
from loadtests.turns import WARM_UP, Slot, schedule

SHORT_SHARE = 0.2
"""The share of the engine's time that short texts take by default, were they alone."""
BATCH_ROWS, BATCH_STEPS = 4, 20


@dataclass(frozen=True)
class SharingSettings:
    """Turns of so many seconds; how many tokens long and short texts read and write, and how often short ones come.

    `rate` is short texts a second; None chooses one at which they would keep the engine busy for `SHORT_SHARE` of the
    time. `longs` are the loads: so many long texts under way at once.
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
class SharingReport:
    """What was shared, on what host, under which load, and every turn, the warm-up's too.

    `rate` is short texts a second; one alone took `short_s`, a long one alone `long_s`, with all cores in one lane.
    """

    checkpoint: str
    host: str
    settings: SharingSettings
    rate: float
    short_s: float
    long_s: float
    turns: SharingTurns
    batches: tuple[BatchTurn, ...]
    lasted_s: float


@dataclass(frozen=True)
class _Bench:
    """The texts, and an engine for each number of threads."""

    engines: Mapping[int, Seq2SeqEngine]
    long: Text
    short: Text
    rate: float
    settings: SharingSettings


def share(location: str, work: Path, settings: SharingSettings, console: Console) -> SharingReport:
    """Takes all turns over one checkpoint; minutes. Raises LoadTestError and SourceRefused.

    `location` is an architecture's name, `starter:NAME` or a folder; its graphs are kept below `work`. A text longer
    than the checkpoint's positions is read as far as they go, and the report says so.
    """
    started = perf_counter()
    folders = prepare(location, ["int8"], work, CORES, console)
    known = shapes(folders.checkpoint)
    long = _text(known, settings.long_read, settings.long_written, settings.seed)
    short = _text(known, settings.short_read, settings.short_written, settings.seed + 1)
    with console.status("loading, and writing one text alone"):
        engines = {threads: _engine(folders.by_kind["int8"], threads) for threads in (1, CORES)}
        short_s, long_s = (alone_s(engines[CORES], text) for text in (short, long))
    rate = settings.rate or float(f"{SHORT_SHARE / short_s:.2g}")
    turns, batches = _run(_Bench(engines, long, short, rate, settings), console)
    return SharingReport(
        checkpoint=folders.name,
        host=read_host().kind,
        settings=replace(settings, long_read=len(long.token_ids), short_read=len(short.token_ids)),
        rate=rate,
        short_s=short_s,
        long_s=long_s,
        turns=SharingTurns(turns),
        batches=batches,
        lasted_s=perf_counter() - started,
    )


def _text(known: Shapes, read: int, written: int, seed: int) -> Text:
    ids = input_text(known, DecodingSettings(tokens=written, input_tokens=read, seed=seed))
    return Text.of(ids, written, known.start_id, known.end_id)


def _engine(folder: Path, threads: int) -> Seq2SeqEngine:
    try:
        return open_seq2seq_engine("onnx", folder, threads)
    except ValueError as error:
        raise EngineFailed(f"the int8 graphs of {folder.parent.name}: {error}") from None


def _run(bench: _Bench, console: Console) -> tuple[tuple[SharingTurn, ...], tuple[BatchTurn, ...]]:
    """Every turn in the schedule's order, and once a round a batch."""
    settings, taken, batches = bench.settings, [], list[BatchTurn]()
    slots = list(schedule([one.name for one in ARRANGEMENTS], settings.longs, settings.rounds, settings.seed))
    with (
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        Progress(console=console, refresh_per_second=1) as bar,  # it is drawn by the process that is measured
    ):
        line = bar.add_task("warming up", total=sum(_seconds(slot, settings) for slot in slots))
        for slot in slots:
            stage = "warming up" if slot.round == WARM_UP else f"round {slot.round} of {settings.rounds}"
            bar.update(line, description=f"{stage}: {slot.contestant}, {slot.connections} long")
            if len(batches) == slot.round:
                batches.append(batch_turn(bench.engines[CORES], bench.long, slot.round, BATCH_ROWS, BATCH_STEPS))
            threading.Event().wait(SETTLE_S)
            taken.append(_turn(bench, slot, runner))
            bar.advance(line, _seconds(slot, settings))
    return tuple(taken), tuple(batches)


def _turn(bench: _Bench, slot: Slot, runner: asyncio.Runner) -> SharingTurn:
    """One arrangement's turn, and how busy the machine was with anything else meanwhile."""
    arrangement = next(one for one in ARRANGEMENTS if one.name == slot.contestant)
    arriving = LoadSettings(bench.rate, _seconds(slot, bench.settings), seed=bench.settings.seed + slot.round)
    load = Load(bench.long, bench.short, slot.connections, arriving)  # the load of a slot is how many long texts
    mine, cores = [psutil.Process()], psutil.cpu_count() or 1
    psutil.cpu_percent()
    began, own_before = perf_counter(), cpu_seconds(mine)
    seen = runner.run(shared(bench.engines[arrangement.threads], arrangement, load))
    busy, own = psutil.cpu_percent() / 100, (cpu_seconds(mine) - own_before) / (perf_counter() - began) / cores
    return SharingTurn(
        slot.round,
        slot.connections,
        slot.contestant,
        seen.short.latency,
        seen.long,
        seen.short.offered,
        seen.tokens_per_s,
        seen.short.lag,
        max(0.0, busy - own),
    )


def _seconds(slot: Slot, settings: SharingSettings) -> float:
    return min(settings.warm_up_seconds, settings.seconds) if slot.round == WARM_UP else settings.seconds
