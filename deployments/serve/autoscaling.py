"""How many replicas of a checkpoint there should be, by how busy they are; wired into Ray Serve's autoscaler.

Requests do not travel through Serve's handles, so Serve itself would see no load: each replica says how busy it was
and how much work it had before it (`record_autoscaling_stats`), Serve averages that over `LOOK_BACK_S` and asks
`FollowLoad` here, then applies the bounds and the delays. The rule is `replicas_for`, which knows no Ray. Serve pickles
this module by value into its controller, so it imports nothing of the house at run time but the catalog.
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
"""What a replica reports is averaged over so many seconds: an engine run or a burst of requests is not a trend."""

REPORT_EVERY_S = 2.0
"""Seconds between two reports of a replica."""

ROOM_TO_SPARE = 1.2
"""Fewer replicas are enough only where they would be enough for so many times the load: what one tick retires, the
next must not start again."""

BUSY_SHARE = "busy_share"
BACKLOG_S = "backlog_s"


def replicas_for(current: int, load: float) -> int:
    """How many replicas a load needs, given in replicas that it keeps as busy as they are to be.

    Never fewer for more load; at least one. Loads that differ by less than `ROOM_TO_SPARE` keep the number where it is.
    """
    enough, spacious = math.ceil(load), math.ceil(load * ROOM_TO_SPARE)
    return max(1, enough if enough > current else min(spacious, current))


@dataclass(frozen=True)
class FollowLoad:
    """The policy that Serve's controller asks on each of its rounds."""

    target_busy_share: float
    target_backlog_s: float

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """The number of replicas to have, and nothing to be remembered.

        A replica that has not reported yet adds to no load. Where none has, the number stays.
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
    """The share of its time for which a replica's engine was busy, from one look to the next.

    `runs` is how many batches it runs at once. Texts in turns are counted when they end, so one that took long counts
    all at once: what that gives above 1 is left out.
    """

    clock: Callable[[], float]
    runs: int
    _looked: tuple[float, float] | None = field(default=None, init=False)

    def since_last(self, busy_s: float) -> float:
        """The share since the last look, 0 at the first; `busy_s` is the engine time since the start."""
        now_s = self.clock()
        before_s, busy_before_s = self._looked or (now_s, busy_s)
        self._looked = (now_s, busy_s)
        passed_s = (now_s - before_s) * self.runs
        return min((busy_s - busy_before_s) / passed_s, 1.0) if passed_s > 0 else 0.0


def autoscaling_config(entry: CatalogEntry, budget_s: float) -> AutoscalingConfig | None:
    """What Serve is told of a checkpoint that autoscales; None of one that does not. `budget_s` is its task's default.

    A request of that budget still makes it behind half of it, unless it takes as long itself.
    """
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    asked = entry.autoscaling
    if asked is None:
        return None
    target_backlog_s = budget_s / 2 if asked.target_backlog_ms is None else asked.target_backlog_ms / 1000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of metrics_interval_s, which 2.60 still goes by
        return AutoscalingConfig(
            min_replicas=asked.min_replicas,
            max_replicas=asked.max_replicas,
            upscale_delay_s=asked.upscale_delay_s,
            downscale_delay_s=asked.downscale_delay_s,
            look_back_period_s=LOOK_BACK_S,
            metrics_interval_s=REPORT_EVERY_S,
            policy=AutoscalingPolicy(
                policy_function=f"{FollowLoad.__module__}:{FollowLoad.__name__}",
                policy_kwargs={"target_busy_share": asked.target_busy_share, "target_backlog_s": target_backlog_s},
            ),
        )
