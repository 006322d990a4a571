"""What a person sees while a scenario is offered: which run of how many, and how far it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from loadtests.offering.capacity import Step


class Bars:
    """Two bars: runs, and the seconds of the one under way. `shown` makes them."""

    def __init__(self, progress: Progress, runs: TaskID, seconds: TaskID, lasts_s: float) -> None:
        self._progress = progress
        self._runs = runs
        self._seconds = seconds
        self._lasts_s = lasts_s

    def begin(self, name: str) -> None:
        """Another run begins."""
        self._progress.reset(self._seconds, description=name)

    def age(self, age_s: float) -> None:
        """How many seconds old it is; past its length it only waits for answers."""
        self._progress.update(self._seconds, completed=min(age_s, self._lasts_s))

    def end(self) -> None:
        """It is over."""
        self._progress.advance(self._runs)

    def step(self, step: Step | None, age_s: float) -> None:
        """A step of the capacity's measurement is so old, or is over."""
        if step is not None:
            what = f"capacity: {step.answered_per_s:.1f} of {step.offered_per_s:.1f}/s answered"
            self._progress.update(self._seconds, description=what)
        self.age(age_s)


@contextmanager
def shown(runs: int, lasts_s: float, console: Console) -> Iterator[Bars]:
    """The bars for so many runs of so many seconds."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        whole = progress.add_task("runs", total=runs)
        one = progress.add_task("", total=round(lasts_s))
        yield Bars(progress, whole, one, lasts_s)
