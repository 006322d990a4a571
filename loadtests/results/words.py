"""How figures are said: the title, unit and digits of each, the same in tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.results.aggregate import Figure, Spread
from loadtests.results.run import RunResult


@dataclass(frozen=True, slots=True)
class Scale:
    """A figure is shown `times` its value, with so many digits behind the point."""

    title: str
    unit: str
    times: float
    digits: int

    def spread(self, spread: Spread, sign: bool = False) -> str:
        """The mean, and ± half the interval where there is one."""
        value = spread.mean * self.times
        mean = signed(value, self.digits) if sign else f"{value:.{self.digits}f}"
        return mean if spread.margin is None else f"{mean} ± {spread.margin * self.times:.{self.digits}f}"


def signed(value: float, digits: int) -> str:
    """With its sign, a minus being a minus and no hyphen, and nothing being neither."""
    said = f"{value:+.{digits}f}".replace("-", "\u2212")
    return said if said.strip("+\u22120.") else said[1:]


def scale_of(runs: Sequence[RunResult], figure: Figure) -> Scale:
    """The scale of a figure for these runs: quality is in points or, where tasks are mixed, in percent of the best."""
    match figure:
        case "attainment":
            return Scale("SLA attainment", "% of requests offered", 100.0, 1)
        case "coverage":
            return Scale("Coverage", "% of answers", 100.0, 1)
        case "goodput_per_s":
            return Scale("Goodput", "answers in time a second", 1.0, 1)
        case "effective_quality":
            if any(run.quality_unit != "points" for run in runs):
                return Scale("Effective quality", "% of the task's best", 100.0, 1)
            most = max((run.effective_quality for run in runs), default=0.0)
            return Scale("Effective quality", "points", 1.0, 2 if most > 2 else 4)
