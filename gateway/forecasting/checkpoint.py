"""A served checkpoint: what it promises, how fast it is forecast to be, and how busy its replicas are.

Router, scheduler and price all see a checkpoint as this one object; so does the simulator.
"""

from __future__ import annotations

from gateway.forecasting.forecaster import Forecast, Forecaster
from gateway.forecasting.load import LoadTracker
from gateway.model.tier import Tier

USUAL_PERCENTILE = 95.0


class ServedCheckpoint:
    """One checkpoint of a task. `quality` orders the checkpoints; `utility` is what an answer is worth, in points.

    `threads` are the cores that one batch keeps busy, `slots_per_replica` the batches that a replica runs at once.
    """

    __slots__ = (
        "domain",
        "forecaster",
        "load",
        "max_batch",
        "name",
        "quality",
        "slots_per_replica",
        "threads",
        "tier",
        "utility",
    )

    def __init__(
        self,
        name: str,
        tier: Tier,
        quality: float,
        utility: float,
        domain: str | None,
        forecaster: Forecaster,
        load: LoadTracker,
        threads: int = 1,
        slots_per_replica: int = 1,
    ) -> None:
        self.name, self.tier, self.quality, self.utility, self.domain = name, tier, quality, utility, domain
        self.forecaster = forecaster
        self.load = load
        self.max_batch = forecaster.model.max_batch
        self.threads = threads
        self.slots_per_replica = slots_per_replica

    @property
    def slots(self) -> int:
        """How many batches its replicas run at once; 0 while none is up."""
        return self.load.replicas(self.name) * self.slots_per_replica

    def plain_forecast(self, percentile: float, now_s: float) -> Forecast | None:
        """The forecast by the profile alone; None while no replica is up."""
        return None if self.load.ahead(self.name, now_s) is None else self.forecaster.plain(percentile)

    def others_s(self, now_s: float) -> float:
        """How long what other gateways sent its replicas would keep a request waiting, in seconds."""
        return self.load.others_s(self.name, now_s)

    def run_s(self, inputs: int, characters: int) -> float:
        """The median core-seconds of one batch of so many inputs of so many characters each."""
        return self.forecaster.run_s(inputs, characters)

    def reach_s(self, run_s: float, now_s: float) -> float:
        """What a request takes by the 95th percentile, overhead included, in a batch expected to take `run_s`."""
        return self.forecaster.reach_s(run_s, USUAL_PERCENTILE, now_s) + self.others_s(now_s)
