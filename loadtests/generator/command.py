"""The commands `punctual load` and `punctual bench ceiling`: options, output and exit status.

Exit status: 0, or 1 if a run is not valid. Raises LoadTestError.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from loadtests.generator.calls import Handling, held_out
from loadtests.generator.capacity import Capacity, Step
from loadtests.generator.ceiling import find_ceiling
from loadtests.generator.checkpoints import live_variants
from loadtests.generator.experiment import Experiment, Planned, Ran, Terms, own_handling, planned, static_handlings
from loadtests.generator.figures import LiveResult, sample_of
from loadtests.generator.neighbour import command_of
from loadtests.generator.open_loop import generating
from loadtests.generator.tables import capacity_grid, endings_grid, honesty_grid, latency_grid
from loadtests.options import positive
from loadtests.reports.comparison import Roles
from loadtests.reports.runs import Recorded, recorded, write_json
from loadtests.reports.tables import figure_grids, invalid_grid
from loadtests.workload.options import (
    CvsOption,
    HtmlOption,
    JsonOption,
    LoadsOption,
    ScenarioArgument,
    ScenarioCommand,
    SecondsOption,
    SeedsOption,
    writable,
)
from loadtests.workload.scenario import overridden, read_scenario

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def _share(text: str) -> float:
    value = positive(text)
    if value > 1:
        raise typer.BadParameter("must be more than 0 and at most 1")
    return value


UrlOption = Annotated[str, typer.Option(help="the gateway's")]
LabelOption = Annotated[str | None, typer.Option(help="the policy's name in reports (default: gateway, or static:PIN)")]
PinOption = Annotated[
    list[str] | None, typer.Option(metavar="CHECKPOINT", help="pin all requests of its task to it; once a task")
]
ModeOption = Annotated[
    Literal["strict", "best-effort"] | None, typer.Option(help="the mode of every request (default: the scenario's)")
]
StaticsOption = Annotated[
    bool, typer.Option("--statics", help="also run every static choice, in rotation with the gateway's own")
]
RivalOption = Annotated[
    list[str] | None,
    typer.Option(metavar="LABEL=URL", help="also send to this gateway, in rotation: one with another --policy"),
]
MeasureOption = Annotated[
    bool,
    typer.Option("--measure-capacity", help="first measure the quality tier's capacity; loads are relative to it"),
]
ShadowOption = Annotated[bool, typer.Option("--shadow", help="send refused strict requests once more, best effort")]
ShareOption = Annotated[float, typer.Option(parser=_share, metavar="SHARE", help="of refused requests to send again")]
DuringOption = Annotated[
    str | None, typer.Option(metavar="COMMAND", help="a command to run beside each run; split without a shell")
]
AtOption = Annotated[
    float, typer.Option(min=0, metavar="S", help="when --during starts, in seconds of the run, warm-up included")
]
PatienceOption = Annotated[
    float, typer.Option(parser=positive, metavar="S", help="how long to wait for an answer after the longest budget")
]
SamplesOption = Annotated[
    Path | None, typer.Option(parser=writable, metavar="FILE", help="write every counted request there, as JSON Lines")
]
RateSecondsOption = Annotated[float, typer.Option(parser=positive, metavar="S", help="at each rate")]


@app.command(cls=ScenarioCommand)
def load(
    scenario: ScenarioArgument,
    url: UrlOption = "http://127.0.0.1:8000",
    policy_label: LabelOption = None,
    pin: PinOption = None,
    mode: ModeOption = None,
    statics: StaticsOption = False,
    rival: RivalOption = None,
    loads: LoadsOption = None,
    cvs: CvsOption = None,
    seeds: SeedsOption = None,
    seconds: SecondsOption = None,
    measure_capacity: MeasureOption = False,
    shadow: ShadowOption = False,
    shadow_share: ShareOption = 0.1,
    during: DuringOption = None,
    at: AtOption = 0.0,
    patience: PatienceOption = 10.0,
    json: JsonOption = None,
    html: HtmlOption = None,
    samples: SamplesOption = None,
) -> None:
    """Sends a scenario, open loop, to a running gateway."""
    console = Console(highlight=False)
    numbers = {"loads": loads, "cvs": cvs, "seeds": seeds, "seconds": seconds}
    of = overridden(read_scenario(scenario), numbers)
    beside = command_of(during) if during else None
    terms = Terms(url.rstrip("/"), patience, shadow_share if shadow else 0.0, beside, at)
    variants = live_variants(terms.url)
    handlings = [own_handling(policy_label, pin or (), mode, of, variants)]
    if statics:
        handlings += [one for one in static_handlings(of, variants, mode) if one.label != handlings[0].label]
    handlings += [_rival(given, mode) for given in rival or ()]
    runs = planned(of, handlings)
    with generating() as generator, Bars(len(runs), of.warmup_s + of.seconds, console) as bars:
        experiment = Experiment(of, variants, held_out(), terms, generator.fire)
        capacity = experiment.reckoned_capacity()
        if measure_capacity:
            bars.begin("capacity")
            capacity = experiment.measured_capacity(bars.step)
        done = _done(experiment, runs, capacity, bars, json, samples)
    results = [result for result, _ in done]
    _show(results, capacity, handlings[0].label, console)
    if html:
        from loadtests.reports.report import write_report  # needs Matplotlib, which may be missing

        write_report(of, results, html, [kept for _, kept in done], handlings[0].label)
    raise typer.Exit(0 if all(result.valid for result in results) else 1)


def _rival(given: str, mode: Literal["strict", "best-effort"] | None) -> Handling:
    label, _, url = given.partition("=")
    if not label or not url.startswith(("http://", "https://")):
        raise typer.BadParameter("must be a label, = and a URL", param_hint="--rival")
    return Handling(label, mode=mode, url=url.rstrip("/"))


def ceiling(seconds: RateSecondsOption = 3.0) -> None:
    """Finds how many requests a second `punctual load` can send on time on this machine."""
    raise typer.Exit(0 if find_ceiling(seconds, Console(highlight=False)) else 1)


class Bars(Progress):
    """Progress bars: the runs finished, and the age of the current run in seconds."""

    def __init__(self, runs: int, lasts_s: float, console: Console) -> None:
        super().__init__(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        )
        self._lasts_s = lasts_s
        self._runs = self.add_task("runs", total=runs)
        self._seconds = self.add_task("", total=round(lasts_s))

    def begin(self, name: str) -> None:
        """Starts the bar of the next run."""
        self.reset(self._seconds, description=name)

    def age(self, age_s: float) -> None:
        """Shows the age of the run; past its length it only waits for answers."""
        self.update(self._seconds, completed=min(age_s, self._lasts_s))

    def end(self) -> None:
        """Marks the run as finished."""
        self.advance(self._runs)

    def step(self, step: Step | None, age_s: float) -> None:
        """Shows the age of a capacity step, or its result when it is over."""
        if step is not None:
            what = f"capacity: {step.answered_per_s:.1f} of {step.offered_per_s:.1f}/s answered"
            self.update(self._seconds, description=what)
        self.age(age_s)


def _done(
    experiment: Experiment,
    runs: Sequence[Planned],
    capacity: Capacity,
    bars: Bars,
    json: Path | None,
    samples: Path | None,
) -> list[tuple[LiveResult, Recorded]]:
    """Makes the runs and rewrites the files after each, so that an interrupted experiment keeps its finished runs.

    Keeps only as many requests of a run as the plots show.
    """
    if samples:
        samples.write_bytes(b"")
    done: list[tuple[LiveResult, Recorded]] = []
    for one in runs:
        bars.begin(str(one))
        ran = experiment.run(one, capacity, bars.age)
        done.append((ran.result, recorded(ran.result, [sample_of(result) for result in ran.results])))
        if samples:
            _add_samples(ran, samples)
        if json:
            write_json([result for result, _ in done], json)
        bars.end()
    return done


def _add_samples(ran: Ran, path: Path) -> None:
    """Appends every counted request of a run as a line of JSON, for analyses beyond the tables."""
    result = ran.result
    run = {"policy": result.policy, "load": result.load, "cv": result.cv, "seed": result.seed}
    with path.open("ab") as file:
        file.writelines(msgspec.json.encode(run | msgspec.to_builtins(one)) + b"\n" for one in ran.results)


def _show(results: Sequence[LiveResult], capacity: Capacity, ours: str, console: Console) -> None:
    roles = Roles.of(results, ours)
    grids = [capacity_grid(capacity)] if capacity.measured else []
    grids += [*figure_grids(results, roles, "attainment"), *figure_grids(results, roles)]
    grids += [endings_grid(results), latency_grid(results), honesty_grid(results)]
    for grid in grids:
        console.print(grid.rich())
    how = "measured here" if capacity.measured else "by the latency profiles"
    console.print(f"load 1 is {capacity.per_s:.1f} requests/s, {how}")
    if invalid := invalid_grid(results):
        console.print("[red]NOT VALID[/]: the figures of these runs are not the gateway's")
        console.print(invalid.rich())
