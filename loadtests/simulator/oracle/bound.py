"""The oracle: an upper bound on the utility of answers in time, for any policy, even one that knows the future.

Knows requests, variants and cores. Knows no policy, no forecast and no chance: runs take their medians.

Why no policy beats `upper`. Take any plan, and of each of its runs only the members that are in time.
 - A run of k such inputs takes at least the variant's median for k inputs, padded to at least the longest of them. So
   each input's share is at least median(k) / k for a k whose median fits into its own budget less the overhead, and
   for which k inputs (late ones not needed) were waiting together at the run's beginning. `menu` takes the least
   such share. (Where measured medians fall with a larger batch or length, the least from there on counts.)
 - The run lies between its members' arrivals and their deadlines less the overhead, so each share is done within the
   request's own window. In any bin of time the cores do at most cores × its length of work.
 - So the plan is feasible for a linear program: requests divided over variants, their shares assigned to the bins that
   their windows touch. Any prices of the bins bound that program from above (weak duality, `Prices.bound`). A solver
   over grouped requests only proposes prices, so neither its tolerance nor the grouping can make the bound too low.

The program allows preemption and shared cores, so the bound also holds for runs that share cores as in `World`. It
has three premises: no run holds more inputs than `max_batch`, or than one request that has more; the overhead is the
same for all; a run takes at least its median. With noise (factors of mean 1 or more that no policy foresees) the work
holds on average, but a fast run may fit where its median would not; `fastest` below 1 allows for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from loadtests.simulator.oracle.menu import menus
from loadtests.simulator.oracle.prices import fair_prices
from loadtests.simulator.oracle.schedule import PlannedRun, schedule
from loadtests.workload.arrivals import Offered
from loadtests.workload.variants import Variant

_ROUNDING = 1e-9
"""The relative margin added to `upper`, against rounding errors of sums."""

_FILLED = 0.85
"""The share of the cores in a second set of prices for the schedule, since no schedule fills all cores.

On the scenario grid-both at loads from 0.6 to 3, the schedule earns 0 to 12 % more by these prices.
"""


@dataclass(frozen=True, slots=True)
class Bound:
    """Bounds on the greatest utility: `schedule` earns `lower`, no policy earns more than `upper`."""

    upper: float
    lower: float
    schedule: tuple[PlannedRun, ...] = field(default=(), repr=False)


def quality(variant: Variant) -> float:
    """The utility of an answer in time in a run of one task: the variant's quality, in the catalog's points."""
    return variant.quality


def oracle_bound(
    offered: Sequence[Offered],
    variants: Sequence[Variant],
    cores: int,
    overhead_s: float,
    counted: Callable[[Offered], bool],
    utility: Callable[[Variant], float] = quality,
    fastest: float = 1.0,
    stretches: int = 60,
) -> Bound:
    """Bounds the total utility of answers in time to the counted requests.

    `utility` must not be negative; for mixed tasks, pass quality over the best quality of the variant's task. `fastest`
    is the least share of its median that a run may take when it is fitted into a budget. The schedule serves counted
    requests only, each run on a core of its own. `stretches` trades time for accuracy: 0 takes a third of the time and
    lowers `lower` by up to 2 %.
    """
    possible = menus(offered, variants, overhead_s, counted, utility, fastest).hopeful
    if not possible.requests:
        return Bound(0.0, 0.0)

    def earned(runs: Sequence[PlannedRun]) -> float:
        return sum(len(run.members) * utility(run.variant) for run in runs)

    prices = fair_prices(possible, cores)
    guides = (prices, fair_prices(possible, _FILLED * cores))
    guide = max(guides, key=lambda guide: earned(schedule(possible, variants, cores, guide, 0)))
    runs = schedule(possible, variants, cores, guide, stretches)
    return Bound(prices.bound(possible, cores) * (1 + _ROUNDING), earned(runs), tuple(runs))
