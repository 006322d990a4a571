"""`punctual bench engines`: the time per token of decoding engines on the same encoder-decoder checkpoint.

Each engine runs in its own process, loaded throughout, or reloaded for every turn if memory cannot hold all. Engines
alternate in shuffled rounds. All write the same number of tokens; none may end earlier. Durations are in seconds.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Annotated

import psutil
import typer
from platformdirs import user_cache_path
from rich.console import Console

from deployments.engines.host import read_host
from loadtests import options
from loadtests.bench.decoding.folders import RANDOM, Shapes, prepare, shapes
from loadtests.bench.decoding.process import Ask, Job, Loaded, Writing, running
from loadtests.bench.measuring.machine import not_quiet
from loadtests.bench.measuring.report import Report, Table, present
from loadtests.bench.measuring.rounds import Plan, Slot, Spread, Turns, draw_medians, shown, take_turns
from loadtests.errors import NoRace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREEDY, BEAMS = 1, 4
HOW = {GREEDY: "greedy", BEAMS: f"{BEAMS} beams"}
WORTH = 1.3
"""The speed, as a multiple of the baseline's, from which another library is worth its upkeep."""
LEAST_ROUNDS = 3
"""The minimum number of valid rounds for a judgement."""
SETTLE_S = 0.4
"""The pause between turns: OpenMP threads spin for 0.2 s after their last work, on the next engine's cores."""
IDLE_S = 2.0
HELD_PER_BYTE = 2.0
"""Bytes in memory per byte on disk: measured 1.2 to 2.1, by engine."""
FIRST_WORD = 5
"""The lowest token id in a text; tokenizers use lower ids for special tokens."""
WORK = user_cache_path("punctual") / "engines"
"""The default cache of model folders."""


@dataclass(frozen=True)
class Engine:
    """One engine in one precision, the library it needs, and the kind of folder it loads."""

    name: str
    library: str
    loads: str

    @property
    def installed(self) -> bool:
        """True if its library is installed."""
        return find_spec(self.library) is not None


BASELINE = "onnxruntime-int8"
ENGINES = (
    Engine(BASELINE, "onnxruntime", "int8"),
    Engine("onnxruntime-fp32", "onnxruntime", "fp32"),
    Engine("ctranslate2-int8", "ctranslate2", "ctranslate2"),
    Engine("openvino-bf16", "openvino", "fp32"),
    Engine("torch-bf16", "torch", "checkpoint"),
)
CANDIDATES = frozenset(engine.name for engine in ENGINES if engine.library != "onnxruntime")
"""Engines of other libraries than the baseline's, judged on whether to add them."""


@dataclass(frozen=True)
class Settings:
    """Tokens read and written, rounds and threads. `engines` None means all.

    `apart` reloads each engine for every turn, even if memory can hold all.
    """

    rounds: int = 5
    tokens: int = 32
    input_tokens: int = 512
    threads: int = 2
    seed: int = 20
    apart: bool = False
    engines: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Race:
    """The engines, conditions and turns of one checkpoint's comparison.

    `others` is the share of the machine that other processes used; `missing` names engines whose library is not
    installed.
    """

    checkpoint: str
    host: str
    settings: Settings
    input_tokens: int
    loaded: Mapping[str, Loaded]
    missing: tuple[str, ...]
    apart: bool
    others: float
    turns: Turns[Writing]
    lasted_s: float


def command(
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            help="distilbart-6-6 or pegasus-large (random weights), starter:NAME or a folder; may be given several "
            "times (default: the two with random weights)"
        ),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(help="an engine to compare; may be given several times (default: all that are installed)"),
    ] = None,
    rounds: options.Rounds = Settings.rounds,
    tokens: Annotated[int, typer.Option(min=2, help="tokens to write")] = Settings.tokens,
    input_tokens: Annotated[int, typer.Option(min=2, help="tokens to read, at most")] = Settings.input_tokens,
    threads: Annotated[int, typer.Option(min=1, help="of each engine")] = Settings.threads,
    apart: Annotated[
        bool,
        typer.Option("--apart", help="reload each engine for every turn (always so if memory cannot hold all)"),
    ] = False,
    seed: Annotated[int, typer.Option(help="of the text and the order")] = Settings.seed,
    work: Annotated[Path, typer.Option(help="folder that caches graphs")] = WORK,
    json: options.Json = None,
    svg: Annotated[Path | None, typer.Option(help="write a plot of the times per token there")] = None,
    markdown: Annotated[Path | None, typer.Option(help="write the tables there")] = None,
) -> None:
    """Measures the time per token of each decoding engine."""
    chosen = tuple(engine) if engine else None
    settings = Settings(rounds, tokens, input_tokens, threads, seed, apart, chosen)
    report = measure(checkpoint or RANDOM, work, settings, options.console)
    raise typer.Exit(present(report, options.console, json=json, markdown=markdown, plot=svg))


def measure(locations: Sequence[str], work: Path, settings: Settings, console: Console) -> Report:
    """Compares the engines on each checkpoint; takes minutes. Raises LoadTestError and SourceRefused.

    A location is an architecture's name, `starter:NAME` or a folder. The engines' folders are cached below `work`.
    """
    return report_of([race(location, work, settings, console) for location in locations])


def race(location: str, work: Path, settings: Settings, console: Console) -> Race:
    """Compares the engines on one checkpoint. Raises LoadTestError and SourceRefused."""
    if settings.tokens < 2:
        raise NoRace("write 2 tokens or more: the time per token is the difference between many and one")
    wanted = named_engines(settings.engines)
    installed = [engine for engine in wanted if engine.installed]
    if not installed:
        raise NoRace(f"no library is installed for {', '.join(engine.name for engine in wanted)}")
    started = perf_counter()
    folders = prepare(location, [engine.loads for engine in installed], work, settings.threads, console)
    known = shapes(folders.checkpoint)
    text = input_text(known, settings.tokens, settings.input_tokens, settings.seed)
    others = psutil.cpu_percent(IDLE_S) / 100
    jobs = {
        engine.name: Job(
            engine.name,
            str(folders.by_kind[engine.loads].resolve()),
            settings.threads,
            text,
            known.start_id,
            known.end_id,
        )
        for engine in installed
    }
    apart = settings.apart or not _fits([Path(job.folder) for job in jobs.values()])
    turns, loaded = _take_turns(jobs, apart, settings, console)
    return Race(
        checkpoint=folders.name,
        host=read_host().kind,
        settings=settings,
        input_tokens=len(text),
        loaded=loaded,
        missing=tuple(engine.name for engine in wanted if not engine.installed),
        apart=apart,
        others=others,
        turns=turns,
        lasted_s=perf_counter() - started,
    )


def named_engines(names: Sequence[str] | None) -> tuple[Engine, ...]:
    """The named engines, by default all. Raises NoRace for an unknown name, or for several without the baseline."""
    known = [engine.name for engine in ENGINES]
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise NoRace(f"no engine is called {', '.join(unknown)}; there are {', '.join(known)}")
    if names and len(names) > 1 and BASELINE not in names:
        raise NoRace(f"engines are compared with {BASELINE}, which is missing from {', '.join(names)}")
    return tuple(engine for engine in ENGINES if not names or engine.name in names)


def input_text(known: Shapes, tokens: int, input_tokens: int, seed: int) -> tuple[int, ...]:
    """Random token ids to read, cut to the checkpoint's positions. Equal seeds give equal texts.

    Raises NoRace if the checkpoint cannot write `tokens` tokens.
    """
    if tokens > known.positions:
        raise NoRace(f"the checkpoint writes at most {known.positions} tokens, not {tokens}")
    rng = random.Random(seed)
    length = min(input_tokens, known.positions)
    ids = [rng.randrange(min(FIRST_WORD, known.entries - 1), known.entries) for _ in range(length - 1)]
    return (*ids, known.end_id)


def _fits(folders: Sequence[Path]) -> bool:
    """Whether memory can probably hold all of these at once, judged by their sizes on disk."""
    on_disk = sum(file.stat().st_size for folder in folders for file in folder.iterdir())
    return on_disk * HELD_PER_BYTE < psutil.virtual_memory().available


def _take_turns(
    jobs: Mapping[str, Job], apart: bool, settings: Settings, console: Console
) -> tuple[Turns[Writing], dict[str, Loaded]]:
    """All turns, and the result of each engine's first load."""
    plan = Plan(list(jobs), list(HOW), settings.rounds, seed=settings.seed)
    with ExitStack() as stack:
        with console.status("loading the engines"):
            kept = {} if apart else {name: stack.enter_context(running(job)) for name, job in jobs.items()}
        loaded = {name: engine.loaded for name, engine in kept.items()}

        def write(slot: Slot, _seconds: float) -> Writing:
            name, beams = slot.contestant, slot.load
            with nullcontext(kept[name]) if name in kept else running(jobs[name]) as engine:
                if name not in kept:
                    loaded.setdefault(name, engine.loaded)
                    engine.write(Ask(beams, 2))  # warm-up: a first run takes longer
                sleep(SETTLE_S)
                return engine.write(Ask(beams, settings.tokens))

        turns = take_turns(plan, write, console, "beams")
    return turns, {name: loaded[name] for name in jobs}


def report_of(races: Sequence[Race]) -> Report:
    """The tables and judgements of each checkpoint, and one plot of all. There is no target, so no verdict."""
    return Report(
        tables=[table for race in races for table in _tables(race)],
        document={"races": races},
        remarks=[f"{race.checkpoint}: {one}" for race in races for one in judgements(race.turns)],
        cautions=[f"{race.checkpoint}: {caution}" for race in races for caution in cautions(race)],
        figure=lambda: _plot(races),
    )


def judgements(turns: Turns[Writing]) -> list[str]:
    """A sentence for each candidate that ran; none if the baseline did not run."""
    ran = {turn.slot.contestant for turn in turns.taken}
    judged = [beams for beams in HOW if len(turns.rounds(beams)) >= LEAST_ROUNDS]
    found = []
    for name in (engine.name for engine in ENGINES if engine.name in ran & CANDIDATES and BASELINE in ran):
        gains = {HOW[beams]: turns.ratio(name, BASELINE, beams, _speed) for beams in judged}
        found.append(judgement(name, {how: gain for how, gain in gains.items() if gain}))
    return found


def judgement(engine: str, gains: Mapping[str, Spread]) -> str:
    """Whether a library is worth adding: greedy or beam search is `WORTH` times as fast in every valid round.

    `gains` are speeds as multiples of the baseline's, by kind of search.
    """
    if any(gain.low >= WORTH for gain in gains.values()):
        word = "worth an engine"
    elif not gains:
        word = f"not judged, fewer than {LEAST_ROUNDS} rounds count"
    elif any(gain.median >= WORTH for gain in gains.values()):
        word = f"not worth an engine: {WORTH:g} is passed, but not in every round"
    else:
        word = "not worth an engine"
    speeds = "; ".join(f"{how} {shown(gains[how]) if how in gains else 'not measured'}" for how in HOW.values())
    return f"{engine}: {word}: {speeds} × {BASELINE}'s speed"


def cautions(race: Race) -> list[str]:
    """Warnings: engines left out, rounds that do not count, other processes on the machine."""
    left_out = [f"{name} is left out: its library is not installed" for name in race.missing]
    return left_out + race.turns.cautions("beams") + not_quiet(race.others)


def _tables(race: Race) -> list[Table]:
    """One table on loading and encoding, one on writing."""
    turns, settings, names = race.turns, race.settings, list(race.loaded)
    counted = " and ".join(str(len(turns.rounds(beams))) for beams in HOW)
    each = ", each engine reloaded for every turn" if race.apart else ""
    what = f"{race.checkpoint} on {race.host}, {settings.threads} threads"
    reading = Table(
        f"{what}: loading, and reading {race.input_tokens} tokens",
        ["engine", "load, s", "resident, MB", "encoder, ms"],
        [_reading(race, name) for name in names],
        f"median (minimum to maximum) of the rounds that count: {counted} of {settings.rounds}, greedy and with "
        f"beams{each}; ≈ derived: the first token's time minus a further one's",
    )
    writing = Table(
        f"{what}: reading the same text and writing {settings.tokens} tokens",
        ["engine", "how", "ms a token", "×", "summary, s"],
        [
            [
                name,
                how,
                shown(turns.spread(name, beams, _token_s), ".1f", 1000),
                shown(turns.ratio(name, BASELINE, beams, _speed)),
                shown(turns.spread(name, beams, lambda one: one.all_s)),
            ]
            for beams, how in HOW.items()
            for name in names
        ],
        f"the same rounds; × is the speed relative to {BASELINE} within each round",
    )
    return [reading, writing]


def _reading(race: Race, name: str) -> list[str]:
    loaded, own = race.loaded[name], [turn.sample for turn in race.turns.taken if turn.slot.contestant == name]
    alone = any(one.encode_s is not None for one in own)
    encoder = shown(race.turns.spread(name, GREEDY, lambda one: one.encoder_s), ".0f", 1000)
    most = max((one.resident_bytes for one in own), default=0)
    return [
        name if loaded.arithmetic in name else f"{name} ({loaded.arithmetic})",
        f"{loaded.load_s:.1f}",
        f"{loaded.resident_bytes / 1e6:.0f}, later {most / 1e6:.0f}",
        encoder if alone or encoder == "-" else f"≈ {encoder}",
    ]


def _token_s(sample: Writing) -> float:
    return sample.token_s


def _speed(sample: Writing) -> float:
    return 1 / sample.token_s


def _plot(races: Sequence[Race]) -> Figure:
    """Two panels per checkpoint: median time per token, with whiskers from minimum to maximum."""
    from matplotlib.figure import Figure

    from loadtests.reports.drawing import Colour

    panels = [(race, beams) for race in races for beams in HOW]
    figure = Figure(figsize=(8, 2.2 * len(panels)), layout="constrained")
    for axes, (race, beams) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        found = {name: spread for name in race.loaded if (spread := race.turns.spread(name, beams, _token_s))}
        colours = [Colour.RIVAL if name in CANDIDATES else Colour.OURS for name in found]
        draw_medians(axes, found, colours, Colour.INK, 1000)
        axes.set_title(f"{race.checkpoint}, {HOW[beams]}")
        axes.set_xlabel("ms per token, less is better")
    return figure
