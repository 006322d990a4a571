"""The race behind `punctual bench engines`: one encoder-decoder checkpoint, and what a token costs in each engine.

Every engine is loaded from the first turn to the last, each in a process of its own (or anew for every turn, where
memory does not hold them all), and they alternate in shuffled rounds, so that a slow minute falls on everyone. All
write exactly as many tokens, in none of which a text may end. `decoding_figures` says what was found, and
`decoding_report` shows it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TypeAlias

import psutil
from rich.console import Console
from rich.progress import Progress

from deployments.engines.host import read_host
from loadtests.decoding_engines import BASELINE, DecodingEngine, RunningEngine, named_engines, running
from loadtests.decoding_figures import BEAMS, GREEDY, DecodingTurn, DecodingTurns
from loadtests.decoding_folders import Folders, Shapes, prepare, shapes
from loadtests.errors import NoRace
from loadtests.peers.decoding_port import Ask, DecodingJob, Loaded, Told
from loadtests.turns import WARM_UP, Slot, schedule

INPUT_TOKENS = 512
SETTLE_S = 0.4
"""Between two turns: OpenMP's threads spin for 0.2 s after their last work, on the next engine's cores."""
IDLE_S = 2.0
HELD_PER_BYTE = 2.0
"""Bytes in memory for one on disk: 1.2 to 2.1 were seen, by engine."""
FIRST_WORD = 5
"""The lowest id that a text is made of: below it, tokenizers keep their special tokens."""


@dataclass(frozen=True)
class DecodingSettings:
    """How much is read and written, how often and on how many threads. `engines` None means all of them.

    `apart` loads each engine anew for every turn, even where memory would hold them all.
    """

    rounds: int = 5
    tokens: int = 32
    input_tokens: int = INPUT_TOKENS
    threads: int = 2
    seed: int = 20
    apart: bool = False
    engines: tuple[str, ...] | None = None


@dataclass(frozen=True)
class DecodingReport:
    """What was raced, on what, and every turn of it; `others` is what else kept the machine busy, as a share of it.

    `missing` are the engines left out because their library is not installed.
    """

    checkpoint: str
    host: str
    settings: DecodingSettings
    input_tokens: int
    loaded: Mapping[str, Loaded]
    candidates: tuple[str, ...]
    missing: tuple[str, ...]
    apart: bool
    others: float
    turns: DecodingTurns
    lasted_s: float


def decoding_race(location: str, work: Path, settings: DecodingSettings, console: Console) -> DecodingReport:
    """Runs the whole race over one checkpoint; minutes. Raises LoadTestError and SourceRefused.

    `location` is an architecture's name, `starter:NAME` or a folder; what the engines load is kept below `work`.
    """
    check(settings)
    wanted = named_engines(list(settings.engines) if settings.engines else None)
    present = [engine for engine in wanted if engine.installed]
    if not present:
        raise NoRace(f"no library is installed of {', '.join(engine.name for engine in wanted)}")
    started = perf_counter()
    folders = prepare(location, [engine.loads for engine in present], work, settings.threads, console)
    text = input_text(shapes(folders.checkpoint), settings)
    psutil.cpu_percent()
    threading.Event().wait(IDLE_S)
    others = psutil.cpu_percent() / 100
    jobs = {engine.name: (engine, _job(engine, folders, text, settings)) for engine in present}
    apart = settings.apart or not _fits([Path(job.folder) for _, job in jobs.values()])
    if apart:
        console.print("each engine is loaded anew for every turn")
    turns, loaded = _run(jobs, apart, settings, console)
    return DecodingReport(
        checkpoint=folders.name,
        host=read_host().kind,
        settings=settings,
        input_tokens=len(text),
        loaded=loaded,
        candidates=tuple(engine.name for engine in present if engine.candidate),
        missing=tuple(engine.name for engine in wanted if not engine.installed),
        apart=apart,
        others=others,
        turns=turns,
        lasted_s=perf_counter() - started,
    )


def check(settings: DecodingSettings) -> None:
    """Raises NoRace for settings that leave nothing to measure or to compare."""
    if settings.tokens < 2:
        raise NoRace("a race needs 2 tokens or more: what a token costs is the difference between many and one")
    if settings.engines is not None and BASELINE not in settings.engines and len(settings.engines) > 1:
        raise NoRace(f"engines are compared with {BASELINE}, which is not among {', '.join(settings.engines)}")


def input_text(known: Shapes, settings: DecodingSettings) -> tuple[int, ...]:
    """Token ids of the text that every engine reads, cut where the checkpoint's positions end.

    Raises NoRace where it cannot write as many tokens as asked.
    """
    if settings.tokens > known.positions:
        raise NoRace(f"the checkpoint writes at most {known.positions} tokens, not {settings.tokens}")
    chance = random.Random(settings.seed)
    length = min(settings.input_tokens, known.positions)
    ids = [chance.randrange(min(FIRST_WORD, known.entries - 1), known.entries) for _ in range(length - 1)]
    return (*ids, known.end_id)


def _job(engine: DecodingEngine, folders: Folders, text: tuple[int, ...], settings: DecodingSettings) -> DecodingJob:
    known, folder = shapes(folders.checkpoint), folders.by_kind[engine.loads].resolve()
    return DecodingJob(engine.name, str(folder), settings.threads, text, known.start_id, known.end_id)


def _fits(folders: Sequence[Path]) -> bool:
    """Whether memory is likely to hold all of these at once, going by their sizes on disk."""
    on_disk = sum(file.stat().st_size for folder in folders for file in folder.iterdir())
    return on_disk * HELD_PER_BYTE < psutil.virtual_memory().available


Jobs: TypeAlias = Mapping[str, tuple[DecodingEngine, DecodingJob]]


def _run(
    jobs: Jobs, apart: bool, settings: DecodingSettings, console: Console
) -> tuple[DecodingTurns, dict[str, Loaded]]:
    """Every turn, and how each engine loaded the first time."""
    slots = list(schedule(list(jobs), (GREEDY, BEAMS), settings.rounds, settings.seed))
    taken: list[DecodingTurn] = []
    loaded: dict[str, Loaded] = {}
    with ExitStack() as stack, Progress(console=console) as bar:
        line = bar.add_task("loading", total=len(slots))
        kept: dict[str, RunningEngine] = {}
        for name, job in jobs.items() if not apart else ():
            bar.update(line, description=f"loading {name}")
            kept[name] = stack.enter_context(running(*job))
        for slot in slots:
            name, beams = slot.contestant, slot.connections  # the load of this race is how many beams
            stage = "warming up" if slot.round == WARM_UP else f"round {slot.round} of {settings.rounds}"
            bar.update(line, description=f"{stage}: {name}, {'greedy' if beams == GREEDY else f'{beams} beams'}")
            with nullcontext(kept[name]) if name in kept else _anew(jobs, name, beams) as engine:
                loaded.setdefault(name, engine.loaded)
                threading.Event().wait(SETTLE_S)
                told = engine.turn(Ask(beams, settings.tokens))
            taken.append(_turn(slot, told, settings.tokens))
            bar.advance(line)
    return DecodingTurns(tuple(taken)), {name: loaded[name] for name in jobs}


@contextmanager
def _anew(jobs: Jobs, name: str, beams: int) -> Iterator[RunningEngine]:
    """An engine for one turn; what a first run costs more than the next is no part of it."""
    with running(*jobs[name]) as engine:
        engine.turn(Ask(beams, 2))
        yield engine


def _turn(slot: Slot, told: Told, tokens: int) -> DecodingTurn:
    return DecodingTurn(
        slot.round,
        slot.connections,
        slot.contestant,
        tokens,
        told.encode_s,
        told.one_s,
        told.all_s,
        told.resident_bytes,
    )
