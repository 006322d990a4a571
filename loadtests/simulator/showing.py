"""What is shown of a simulated scenario: tables at the terminal and in Markdown, and how far the runs are.

The same runs give the same Markdown: nothing in it depends on how long they took or on how many processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from loadtests.results.aggregate import Place
from loadtests.results.grid import Entry, Grid, Row
from loadtests.results.roles import Roles
from loadtests.results.run import RunResult
from loadtests.results.tables import bound_grids, figure_grids, margin_grid, overall_grid
from loadtests.scenarios.model import Scenario
from loadtests.simulator.play import BOUND, FEASIBLE, OURS
from loadtests.simulator.runs import Insisted, Ran


def grids_of(runs: Sequence[RunResult], roles: Roles) -> tuple[Grid, ...]:
    """In short, effective quality by policy and load, ours against the best baseline, and shares of the bound."""
    to_bound = replace(roles, bounds=tuple(name for name in roles.bounds if name == BOUND))
    grids = (overall_grid(runs, roles), *figure_grids(runs, roles), margin_grid(runs, roles))
    return tuple(grid for grid in (*grids, *bound_grids(runs, to_bound)) if grid.rows)


def refusal_grid(insisted: Sequence[Insisted]) -> Grid:
    """Of the refused requests that were admitted all the same, how many were not answered in time: refused rightly."""
    places: dict[Place, list[Insisted]] = {}
    for one in insisted:
        places.setdefault(Place(one.place.cv, one.place.load), []).append(one)
    rows = [_refusals(f"CV {place.cv:g}, load {place.load:g}", of) for place, of in sorted(places.items())]
    if len(rows) > 1:
        rows.append(_refusals("all", insisted))
    return Grid(
        "Strict refusals, tried once more",
        ("where", "tried", "late or failed", "refused rightly"),
        tuple(rows),
        "Each drawn refusal was admitted whatever was forecast, in a run of its own, under the same seed.",
    )


def markdown_of(
    scenario: Scenario, command: str, said: Sequence[str], runs: Sequence[RunResult], grids: Sequence[Grid]
) -> str:
    """For a document: the command that gives the same again, the verdict, the tables."""
    about = f"{scenario.about}: " if scenario.about else ""
    played = [run for run in runs if run.policy != FEASIBLE]  # the bound's other end is no run of its own
    offered = sum(run.offered for run in played)
    count = f"{about}{len(played)} simulated runs of {scenario.seconds:g} s, {offered:,} requests counted."
    parts = [f"## {scenario.name}\n", f"```\n{command}\n```\n", f"{count[0].upper()}{count[1:]}\n"]
    if said:
        parts.append("\n".join(f"- {sentence}" for sentence in said) + "\n")
    return "\n".join([*parts, *(grid.markdown() for grid in grids)])


def speed(ran: Sequence[Ran]) -> float:
    """Simulated requests a second of one core's time; 0 of nothing."""
    core_s = sum(one.core_s for one in ran)
    return sum(one.requests for one in ran) / core_s if core_s else 0.0


def effort(ran: Sequence[Ran], seconds: float, jobs: int) -> str:
    """What the runs took. The bound is worked out, not played on the clock, and is said apart."""
    on_clock = [one for one in ran if one.order.policy != BOUND]
    bounds = [one for one in ran if one.order.policy == BOUND]
    ours = [one for one in on_clock if one.order.policy == OURS]
    parts = []
    if on_clock:
        requests = sum(one.requests for one in on_clock)
        own = f" ({OURS} alone {speed(ours):,.0f})" if ours and len(ours) < len(on_clock) else ""
        parts.append(
            f"{requests:,} requests in {len(on_clock)} runs simulated, {speed(on_clock):,.0f} a second of a core{own}"
        )
    if bounds:
        parts.append(f"{sum(one.core_s for one in bounds):,.1f} s of a core for the bound in {len(bounds)} runs")
    return f"{'; '.join(parts)}; {seconds:,.1f} s in all with {jobs} {'process' if jobs == 1 else 'processes'}"


class Bar:
    """How many runs are over, and how quickly a core simulates. `shown` makes it."""

    def __init__(self, progress: Progress, runs: TaskID) -> None:
        self._progress = progress
        self._runs = runs

    def over(self, ran: Sequence[Ran] = ()) -> None:
        """One more is over; `ran` are all those with a speed to show."""
        about = f"{speed(ran):,.0f} requests/s a core" if ran else ""
        self._progress.update(self._runs, advance=1, about=about)


@contextmanager
def shown(what: str, total: int, console: Console) -> Iterator[Bar]:
    """A bar for so many of these."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[about]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield Bar(progress, progress.add_task(what, total=total, about=""))


def _refusals(where: str, of: Sequence[Insisted]) -> Row:
    rightly = sum(one.rightly for one in of)
    entries = (Entry(str(len(of))), Entry(str(rightly)), Entry(f"{rightly / len(of) * 100:.1f} %"))
    return Row(Entry(where), entries)
