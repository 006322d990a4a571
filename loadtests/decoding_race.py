"""The race behind `punctual bench engines`: one encoder-decoder checkpoint, and what a token costs in each engine.

Every engine is loaded from the first turn to the last, each in a process of its own, and they alternate in shuffled
rounds, so that a slow minute of the machine falls on everyone. All write exactly as many tokens, in none of which a
text may end. `decoding_figures` says what was found, `decoding_report` shows it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import psutil
from rich.console import Console
from rich.progress import Progress

from deployments.engines.host import read_host
from loadtests.decoding_engines import BASELINE, DecodingEngine, RunningEngine, named_engines, running
from loadtests.decoding_figures import BEAMS, GREEDY, DecodingTurn, DecodingTurns
from loadtests.decoding_folders import Folders, Shapes, prepare, shapes
from loadtests.errors import NoRace
from loadtests.peers.decoding_port import Ask, DecodingJob, Loaded
from loadtests.turns import WARM_UP, schedule

INPUT_TOKENS = 512
SETTLE_S = 0.4
"""Between two turns: OpenMP's threads spin for 0.2 s after their last work, on the next engine's cores."""
IDLE_S = 2.0
FIRST_WORD = 5
"""The lowest id that a text is made of: below it, tokenizers keep their special tokens."""


@dataclass(frozen=True)
class DecodingSettings:
    """How much is read and written, how often and on how many threads. `engines` None means all of them."""

    rounds: int = 5
    tokens: int = 32
    input_tokens: int = INPUT_TOKENS
    threads: int = 2
    seed: int = 20
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
    with ExitStack() as stack:
        engines = [stack.enter_context(_loading(engine, folders, text, settings, console)) for engine in present]
        turns = _run(engines, settings, console)
        loaded = {engine.name: engine.loaded for engine in engines}
    return DecodingReport(
        checkpoint=folders.name,
        host=read_host().kind,
        settings=settings,
        input_tokens=len(text),
        loaded=loaded,
        candidates=tuple(engine.name for engine in present if engine.candidate),
        missing=tuple(engine.name for engine in wanted if not engine.installed),
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


def _loading(
    engine: DecodingEngine, folders: Folders, text: Sequence[int], settings: DecodingSettings, console: Console
) -> AbstractContextManager[RunningEngine]:
    """An engine's process, not entered yet."""
    console.print(f"[dim]loading {engine.name}[/]")
    known = shapes(folders.checkpoint)
    folder = str(folders.by_kind[engine.loads].resolve())
    job = DecodingJob(engine.name, folder, settings.threads, tuple(text), known.start_id, known.end_id)
    return running(engine, job)


def _run(engines: Sequence[RunningEngine], settings: DecodingSettings, console: Console) -> DecodingTurns:
    by_name = {engine.name: engine for engine in engines}
    slots = list(schedule(list(by_name), (GREEDY, BEAMS), settings.rounds, settings.seed))
    taken = []
    with Progress(console=console) as bar:
        line = bar.add_task("warming up", total=len(slots))
        for slot in slots:
            beams = slot.connections  # the load of this race
            stage = "warming up" if slot.round == WARM_UP else f"round {slot.round} of {settings.rounds}"
            bar.update(line, description=f"{stage}: {slot.contestant}, {'greedy' if beams == 1 else f'{beams} beams'}")
            threading.Event().wait(SETTLE_S)
            told = by_name[slot.contestant].turn(Ask(beams, settings.tokens))
            taken.append(
                DecodingTurn(
                    slot.round,
                    beams,
                    slot.contestant,
                    settings.tokens,
                    told.encode_s,
                    told.one_s,
                    told.all_s,
                    told.resident_bytes,
                )
            )
            bar.advance(line)
    return DecodingTurns(tuple(taken))
