"""Who is who in a comparison: the policy that is ours, the bounds that nobody can pass, and the baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtests.results.aggregate import Cell, Figure, Place
from loadtests.results.run import RunResult

OURS = "punctual"
BOUND = "clairvoyant"
"""What the names of policies that know the future begin with: they bound the others and compete with nobody."""


@dataclass(frozen=True, slots=True)
class Roles:
    """The policies of some runs, each in its part; bounds and baselines in the order in which they occur."""

    ours: str
    bounds: tuple[str, ...]
    baselines: tuple[str, ...]

    @classmethod
    def of(cls, runs: Sequence[RunResult], ours: str = OURS) -> Roles:
        """Told by name."""
        names = tuple(dict.fromkeys(run.policy for run in runs))
        return cls(
            ours,
            bounds=tuple(name for name in names if name.startswith(BOUND)),
            baselines=tuple(name for name in names if name != ours and not name.startswith(BOUND)),
        )

    def rank(self, policy: str) -> int:
        """Bounds first, then ours, then the baselines."""
        return 0 if policy in self.bounds else 1 if policy == self.ours else 2


def best_baselines(found: Sequence[Cell], roles: Roles, figure: Figure = "effective_quality") -> Mapping[Place, Cell]:
    """The baseline with the highest mean at each place: chosen with hindsight, which favours the baselines."""
    best: dict[Place, Cell] = {}
    for cell in found:
        if cell.policy not in roles.baselines or not cell.valid:
            continue
        rival = best.get(cell.place)
        if rival is None or cell.spread(figure).mean > rival.spread(figure).mean:
            best[cell.place] = cell
    return best
