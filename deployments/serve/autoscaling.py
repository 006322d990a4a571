"""Decides how many replicas a checkpoint should have, by how busy they are, for Ray Serve's autoscaler.

Requests do not travel through Serve's handles, so Serve sees no load. Instead each replica reports how busy it was and
how much work waits (`record_autoscaling_stats`). Serve averages that over `LOOK_BACK_S`, asks `FollowLoad`, then
applies bounds and delays. The rule is `replicas_for`, which knows no Ray. Serve pickles this module by value into its
controller, so the catalog is the only other module of ours that it imports at run time.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.catalogs.catalog import CatalogEntry

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingConfig, AutoscalingContext

LOOK_BACK_S = 10.0
"""Seconds over which reports are averaged, since one batch or one burst of requests is not a trend."""

REPORT_EVERY_S = 2.0
"""Seconds between reports of a replica."""

SPARE_FACTOR = 1.2
"""Replicas are retired only if the rest suffices for this many times the load, so that none must start again soon."""

BUSY_SHARE = "busy_share"
BACKLOG_S = "backlog_s"


def replicas_for(current: int, load: float) -> int:
    """How many replicas a load needs; the load is in replicas that it would keep at their target.

    Never fewer for more load, and at least one. Loads that differ by less than `SPARE_FACTOR` keep the number.
    """
    enough, spacious = math.ceil(load), math.ceil(load * SPARE_FACTOR)
    return max(1, enough if enough > current else min(spacious, current))


@dataclass(frozen=True)
class FollowLoad:
    """The scaling policy that Serve's controller asks in each of its rounds.

    `build` differs in each build of the application. Serve forgets all policies at a build, and registers only those of
    deployments whose configuration changed (Ray 2.60, `ApplicationState.update`): the same catalog deployed again after
    one that could not be built would scale no more.
    """

    target_busy_share: float
    target_backlog_s: float
    build: str = ""

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Gives the number of replicas to have, and no state to remember.

        A replica that has not reported yet adds no load. If none has, the number stays.
        """
        reported: Mapping[str, Mapping[Any, float]] = context.aggregated_metrics or {}
        if not reported.get(BUSY_SHARE):
            return context.target_num_replicas, {}
        load = max(
            sum(reported[BUSY_SHARE].values()) / self.target_busy_share,
            sum(reported.get(BACKLOG_S, {}).values()) / self.target_backlog_s,
        )
        return replicas_for(context.target_num_replicas, load), {}


@dataclass
class BusyShare:
    """The share of time for which a replica's engine was busy, from one look to the next.

    `slots` is how many batches it runs at a time. Texts that are time-sliced count when they end, so a long one counts
    all at once; a share above 1 counts as 1.
    """

    clock: Callable[[], float]
    slots: int
    _looked: tuple[float, float] | None = field(default=None, init=False)

    def since_last(self, busy_s: float) -> float:
        """The share since the last look, 0 at the first. `busy_s` is the engine's busy seconds since the start."""
        now_s = self.clock()
        before_s, busy_before_s = self._looked or (now_s, busy_s)
        self._looked = (now_s, busy_s)
        passed_s = (now_s - before_s) * self.slots
        return min((busy_s - busy_before_s) / passed_s, 1.0) if passed_s > 0 else 0.0


def autoscaling_config(entry: CatalogEntry, budget_s: float, build: str) -> AutoscalingConfig | None:
    """Configures Serve's autoscaling for a checkpoint; None if it does not scale. `budget_s` is its task's default.

    `build` names this build of the application.

    By default the target backlog is half of that budget: a request behind it is still in time, unless its own service
    takes the other half.
    """
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    asked = entry.autoscaling
    if asked is None:
        return None
    target_backlog_s = budget_s / 2 if asked.target_backlog_ms is None else asked.target_backlog_ms / 1000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of metrics_interval_s, which Ray 2.60 still uses
        return AutoscalingConfig(
            min_replicas=asked.min_replicas,
            max_replicas=asked.max_replicas,
            upscale_delay_s=asked.upscale_delay_s,
            downscale_delay_s=asked.downscale_delay_s,
            look_back_period_s=LOOK_BACK_S,
            metrics_interval_s=REPORT_EVERY_S,
            policy=AutoscalingPolicy(
                policy_function=f"{FollowLoad.__module__}:{FollowLoad.__name__}",
                policy_kwargs={
                    "target_busy_share": asked.target_busy_share,
                    "target_backlog_s": target_backlog_s,
                    "build": build,
                },
            ),
        )
