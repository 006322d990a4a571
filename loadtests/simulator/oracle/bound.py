"""The oracle: a bound on the utility of answers in time that no policy passes, even one that knows the future.

Knows requests, variants and cores. Knows no policy, no forecast and no chance: runs take their medians.

Why no policy beats `upper`. Take any plan, and of each of its runs only the members that are in time.
 - A run of k such inputs takes at least the variant's median for k inputs, padded to at least the longest of them. So
   each input's share is at least median(k) / k for a k whose median fits into its own budget less the overhead, and
   for which k inputs (late ones not needed) were waiting together at the run's beginning. `menu` takes the
   least such share. (Where measured medians fall with a larger batch or length, the least from there on counts.)
 - The run lies between its members' arrivals and their deadlines less the overhead, so each share is worked within the
   request's own window. In any bin of time the cores do no more work than cores × its length.
 - So the plan is a point of a linear programme: requests divided over variants, their shares poured into the bins that
   their windows touch. Any prices of the bins bound that programme from above (weak duality, `Prices.bound`); a solver
   over grouped requests only proposes the prices, so neither its tolerance nor the grouping can make the bound too low.

The work may be interrupted and share cores, so the bound holds for cores shared by runs as in `World`, too. It rests on
three premises: no run holds more inputs than `max_batch`, or than a request that alone has more; the overhead is the
same for all; a run takes no less than its median. Where runs stray, by factors whose mean is 1 or more and which no
policy foresees, the work still holds on average, but a lucky run fits where its median would not: `fastest` below 1
lets it.
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
"""By this part `upper` is raised, so that sums in floating point leave it a bound."""

_FILLED = 0.85
"""The part of the cores by whose prices a schedule is tried, too, since no schedule fills them all.

On the scenario grid-both at loads from 0.6 to 3, the schedule earns 0 to 12 % more by these than by all cores' prices.
"""


@dataclass(frozen=True, slots=True)
class Bound:
    """Between these lies the most that could be earned: `lower` is earned by `schedule`, `upper` by nobody."""

    upper: float
    lower: float
    schedule: tuple[PlannedRun, ...] = field(default=(), repr=False)


def quality(variant: Variant) -> float:
    """The utility of an answer in time, where a run has one task: the variant's quality, in the catalog's points."""
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
    """The most utility that answers in time to the counted requests could have, and a schedule that comes near it.

    `utility` must not be negative; where tasks are mixed, hand in quality over the best quality of the variant's task.
    `fastest` is the part of its median that a run may take where only the bound's budgets are concerned. The schedule
    serves counted requests only, each run on a core of its own. How many `stretches` it is cut into is a matter of
    effort: 0 takes a third of the time and costs up to two hundredths of `lower`.
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
