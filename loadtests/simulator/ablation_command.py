"""The command `punctual simulate ablation`: plays our policy whole and without each of its parts, on many scenarios.

Exit status 0: a part that earns nothing is a finding, not a fault. Raises LoadTestError.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from time import perf_counter, process_time
from typing import Annotated, TypeAlias

import msgspec
import typer
from rich.console import Console
from rich.progress import track

from exporters.options import DEFAULT_CACHE, CacheOption
from loadtests.errors import LoadTestError
from loadtests.options import positive
from loadtests.reports.losses import Loss, loss_grid, loss_of, loss_sentences, scenario_grid
from loadtests.reports.runs import RunResult, write_json
from loadtests.reports.tables import Entry, Grid, Row
from loadtests.simulator.ablation import ABLATIONS, FULL, NOT_ABLATED, ablation_of, applied
from loadtests.simulator.command import prepared_variants
from loadtests.simulator.runs import side_by_side, usable_cores
from loadtests.simulator.simulation import OURS, Place, Simulation
from loadtests.workload.arrivals import rate_of, rate_over_time
from loadtests.workload.options import (
    HtmlOption,
    JobsOption,
    JsonOption,
    MarkdownOption,
    ScenarioCommand,
    SeedsOption,
    writable,
)
from loadtests.workload.scenario import MADE_UP, Scenario, overridden, read_scenario

SHORTER: Mapping[str, Mapping[str, object]] = {
    "grid-both": {"loads": [1.5], "seconds": 3.0, "warmup_s": 0.5},
}
"""Where an ablation plays less of a scenario than the scenario says, so that all takes minutes."""

SCENARIOS = ("grid-both", *MADE_UP)

WIDE = 200
"""The columns of a terminal that the tables of files fit; a narrower one shows fewer columns."""

_SEEDS_APART = 1000
"""The seeds of one place and those of the next are this far apart, so that no two places share one."""

Key: TypeAlias = tuple[str, str, float, float, int, float]
"""A run by its scenario, the part that it is without, load, coefficient of variation, seed, and seconds."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class UnknownPart(LoadTestError):
    """The policy has no such part; the message names those that are like it."""


class BadProgress(LoadTestError):
    """The file of `--resume` has something other than runs; the message names it."""


@dataclass(frozen=True, slots=True)
class Play:
    """One run to play: our policy without the part of that name, or the whole."""

    simulation: Simulation
    without: str
    place: Place

    @property
    def key(self) -> Key:
        """Which run it is."""
        scenario, place = self.simulation.scenario, self.place
        return scenario.name, self.without, place.load, place.cv, place.seed, scenario.seconds

    @property
    def requests(self) -> float:
        """The expected number of requests."""
        scenario = self.simulation.scenario
        rate_per_s = rate_of(scenario, self.simulation.variants, self.place.load)
        return sum(piece.expected for piece in rate_over_time(scenario, rate_per_s))


@dataclass(frozen=True, slots=True)
class Played:
    """A finished run with its number of requests, warm-up included, and its CPU time."""

    result: RunResult
    requests: int
    core_s: float

    @property
    def key(self) -> Key:
        """Which run it is."""
        result = self.result
        return result.scenario, result.policy, result.load, result.cv, result.seed, result.seconds


@app.command(cls=ScenarioCommand)
def ablation(
    cache: CacheOption = DEFAULT_CACHE,
    scenario: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="play this scenario; may be repeated (default: grid-both and all made up)"),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="PART", help="switch this off; may be repeated (default: every part)")
    ] = None,
    longer: Annotated[
        float | None, typer.Option(parser=positive, metavar="TIMES", help="play each run so many times as long")
    ] = None,
    seeds: SeedsOption = None,
    jobs: JobsOption = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            parser=writable,
            metavar="FILE",
            help="add each run to this file as it ends, and play none that it has; delete it when the code changes",
        ),
    ] = None,
    json: JsonOption = None,
    html: HtmlOption = None,
    markdown: MarkdownOption = None,
) -> None:
    """Switches each part of the gateway's policy off in turn, and says what is lost without it."""
    began_s, console = perf_counter(), Console(highlight=False)
    names = _parts(only or ())
    simulations = [_simulation(name, longer or 1.0, seeds, cache, console) for name in scenario or SCENARIOS]
    plays = plays_of(simulations, [FULL, *names])
    processes = jobs or usable_cores()
    played = play_all(plays, processes, resume, console)
    losses = losses_of(simulations, [one.result for one in played], names)
    command, said = _command_line(scenario, only, longer, seeds), loss_sentences(losses)
    grids = (loss_grid(losses), scenario_grid(losses))
    for grid in grids if console.width >= WIDE else [loss_grid(losses, about=False)]:
        console.print(grid.rich())
    for sentence in said:
        console.print(sentence, markup=False)
    if json:
        write_json(sorted((one.result for one in played), key=_order), json)
    if markdown:
        parts = (f"```\n{command}\n```\n", "".join(f"- {sentence}\n" for sentence in said))
        every = (*grids, excused_grid())
        markdown.write_text("\n".join((*parts, *(grid.markdown() for grid in every))), encoding="utf-8")
    if html:
        from loadtests.reports.loss_plot import write_losses  # needs Matplotlib, which may be missing

        write_losses(losses, html, command)
    console.print(_effort(played, perf_counter() - began_s, processes))


def plays_of(simulations: Sequence[Simulation], parts: Sequence[str]) -> list[Play]:
    """Each part's runs at every place of every scenario; each place has the scenario's seeds, moved by its number."""
    return [
        Play(simulation, part, Place(load, cv, seed + _SEEDS_APART * number))
        for simulation in simulations
        for number, (load, cv) in enumerate(_places(simulation.scenario))
        for seed in dict.fromkeys(simulation.scenario.seeds)
        for part in parts
    ]


def play_one(play: Play) -> Played:
    """Plays one run, in whatever process this is; its result has the part's name in the place of the policy's."""
    began_s = process_time()
    offered = play.simulation.offered(play.place)
    with applied(ablation_of(play.without)):
        result = play.simulation.played(OURS, play.place, offered)[0].result
    return Played(msgspec.structs.replace(result, policy=play.without), len(offered), process_time() - began_s)


def play_all(plays: Sequence[Play], jobs: int, file: Path | None, console: Console) -> list[Played]:
    """Plays those of the runs that the file does not have, adds each to it as it ends, and returns all of them."""
    known = {one.key: one for one in _read(file)} if file else {}
    had = [known[play.key] for play in plays if play.key in known]
    left = sorted((play for play in plays if play.key not in known), key=lambda play: -play.requests)
    if had:
        console.print(f"{len(had):,} of {len(plays):,} runs are in {file}", markup=False)
    for one in track(side_by_side(play_one, left, jobs), "runs", len(left), console=console):
        had.append(one)
        if file:
            with file.open("ab") as lines:
                lines.write(msgspec.json.encode(one) + b"\n")
    return had


def _read(file: Path) -> list[Played]:
    """The runs in a file, without a last line that was not finished. Raises BadProgress for any other text."""
    if not file.exists():
        return []
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    try:
        played = msgspec.json.Decoder(Played).decode_lines(whole)
    except msgspec.MsgspecError as error:
        raise BadProgress(f"{file}: not the runs of an ablation: {error}") from None
    if len(whole) < len(content):
        file.write_bytes(whole)
    return played


def losses_of(simulations: Sequence[Simulation], runs: Sequence[RunResult], parts: Sequence[str]) -> list[Loss]:
    """The loss without each part; quality counts in percent of the task's best."""
    best = {one.scenario.name: _best(one) for one in simulations}
    by_part: dict[str, list[RunResult]] = {part: [] for part in (FULL, *parts)}
    for run in sorted(runs, key=_order):
        by_part[run.policy].append(run)
    ablations = [one for one in ABLATIONS if one.name in parts]
    return [loss_of(one.name, one.about, one.kept, by_part[FULL], by_part[one.name], best) for one in ablations]


def excused_grid() -> Grid:
    """The numbers of the policy that no ablation names, each with the reason."""
    rows = tuple(Row(Entry(place), (Entry(reason),)) for place, reason in NOT_ABLATED.items())
    return Grid("Numbers that are not switched off", ("number", "why"), rows)


def _places(scenario: Scenario) -> list[tuple[float, float]]:
    return [(load, cv) for cv in dict.fromkeys(scenario.cvs) for load in dict.fromkeys(scenario.loads)]


def _best(simulation: Simulation) -> float:
    """The best quality of a scenario's variants; of several tasks the runs count in shares of each task's best."""
    return max(one.quality for one in simulation.variants) if len(simulation.scenario.tasks) == 1 else 1.0


def _order(run: RunResult) -> tuple[str, str, float, float, int]:
    return run.scenario, run.policy, run.cv, run.load, run.seed


def _parts(named: Sequence[str]) -> list[str]:
    """The names of the parts to switch off, all if none is named. Raises UnknownPart."""
    known = [one.name for one in ABLATIONS]
    for name in named:
        if name not in known:
            raise UnknownPart(f"{name}: no such part; known: {', '.join(get_close_matches(name, known) or known)}")
    return [name for name in known if not named or name in named]


def _simulation(name: str, longer: float, seeds: list[int] | None, cache: Path, console: Console) -> Simulation:
    scenario = overridden(read_scenario(name), SHORTER.get(name, {}))
    scenario = overridden(scenario, {"seconds": scenario.seconds * longer, "seeds": seeds})
    return Simulation(scenario, prepared_variants(scenario, cache, console))


def _command_line(
    scenarios: Sequence[str] | None, parts: Sequence[str] | None, longer: float | None, seeds: Sequence[int] | None
) -> str:
    """The command that reproduces the results, without output files and number of processes."""
    words = ["punctual", "simulate", "ablation"]
    for option, values in (("--scenario", scenarios), ("--only", parts)):
        for value in values or ():
            words += [option, value]
    if longer:
        words += ["--longer", f"{longer:g}"]
    if seeds:
        words += ["--seeds", *map(str, seeds)]
    return shlex.join(words)


def _effort(played: Sequence[Played], seconds: float, jobs: int) -> str:
    requests, core_s = sum(one.requests for one in played), sum(one.core_s for one in played)
    return (
        f"{requests:,} requests in {len(played):,} runs simulated, {requests / core_s:,.0f} a second of a core, "
        f"{core_s / 60:.1f} min of a core; {seconds:,.0f} s in all with --jobs {jobs}"
    )
