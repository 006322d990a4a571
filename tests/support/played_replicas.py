"""Requests played on one simulated replica, whose ends are noted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from small_scenarios import Even, variant

from deployments.replica.batch_forming import BatchLimits
from loadtests.simulator.replica import BatchingReplica, SharingReplica
from loadtests.simulator.world import World
from loadtests.workload.arrivals import Offered
from loadtests.workload.variants import Variant

BATCHING = variant("batching", 80.0, Even(fixed_s=0.008, per_token_s=0.0001), max_batch=8)
"""A run of one input of 20 tokens takes 10 ms, of eight 24 ms."""

SUMMARIZER = variant("summarizer", 40.0, Even(per_token_s=0.001), task="summarize")
"""A millisecond a token."""

LIMITS = BatchLimits(max_batch=8, max_batch_tokens=100_000, max_padding_waste=0.15)


def asked(
    sequence: int, arrived_s: float = 0.0, budget_s: float = 1.0, tokens: int = 20, texts: int = 1, strict: bool = False
) -> Offered:
    """A request as it is sent to a replica."""
    return Offered(sequence, "any", arrived_s, budget_s, tokens, texts, strict)


@dataclass(frozen=True)
class End:
    """What a replica told of a request."""

    at_s: float
    service_s: float
    answered: bool


@dataclass
class Watched:
    """Sends whatever comes to one replica, and notes its ends."""

    world: World
    replica: BatchingReplica | SharingReplica
    ends: dict[int, End] = field(default_factory=dict)

    def arrived(self, request: Offered) -> None:
        self.replica.enter(request, self._told)

    def ended(self) -> None:
        """Nothing is held here."""

    def _told(self, request: Offered, service_s: float, answered: bool) -> None:
        assert request.sequence not in self.ends, "one request told of twice"
        self.ends[request.sequence] = End(self.world.now_s, service_s, answered)


def batched(offered: Sequence[Offered], slots: int = 1, of: Variant = BATCHING) -> Watched:
    """Plays them on a batching replica with a core for each lane."""
    world = World(slots, seed=1)
    watched = Watched(world, BatchingReplica(world, of, slots, LIMITS))
    world.play(offered, watched)
    return watched


def shared(offered: Sequence[Offered], slots: int = 1) -> Watched:
    """Plays them on a sharing replica with a core for each lane."""
    world = World(slots, seed=1)
    watched = Watched(world, SharingReplica(world, SUMMARIZER, slots))
    world.play(offered, watched)
    return watched
