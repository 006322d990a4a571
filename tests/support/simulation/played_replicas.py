"""Requests played on one simulated replica, whose ends are recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from small_scenarios import Even, variant

from gateway.tasks.service_time import StepSharing
from loadtests.simulator.replica import BatchingReplica, SharingReplica, WritingReplicas
from loadtests.simulator.world import World
from loadtests.workload.arrivals import Offered
from loadtests.workload.variants import Variant

BATCHING = variant("batching", 80.0, Even(fixed_s=0.008, per_token_s=0.0001), max_batch=8)
"""A batch of one input of 20 tokens takes 10 ms, one of eight 24 ms."""

SUMMARIZER = variant("summarizer", 40.0, Even(per_token_s=0.001), task="summarize")
"""A token takes a millisecond."""

STEPS = StepSharing(lambda tokens: 0.010, lambda texts: 1 + 0.25 * (texts - 1))
"""A text is read in 10 ms; a step of two takes a quarter as long again as one of one."""

WRITER = replace(variant("writer", 40.0, Even(0.150, 0.060), task="generate", max_batch=8), joins=STEPS)
"""A text takes 210 ms alone, 200 of them in steps."""


def asked(
    sequence: int, arrived_s: float = 0.0, budget_s: float = 1.0, tokens: int = 20, texts: int = 1, strict: bool = False
) -> Offered:
    """Return a request as it is sent to a replica."""
    return Offered(sequence, "any", arrived_s, budget_s, tokens, texts, strict)


@dataclass(frozen=True)
class End:
    """How and when a request ended at a replica."""

    at_s: float
    service_s: float
    answered: bool
    texts: int


@dataclass
class Watched:
    """Sends every request to one replica, as a batch of its own, and records its end."""

    world: World
    replica: BatchingReplica | SharingReplica | WritingReplicas
    ends: dict[int, End] = field(default_factory=dict)

    def arrived(self, request: Offered) -> None:
        self.replica.enter([request], self._told)

    def ended(self) -> None:
        """Do nothing: no request is held here."""

    def _told(self, requests: Sequence[Offered], service_s: float, answered: bool, texts: int) -> None:
        for request in requests:
            assert request.sequence not in self.ends, "one request told of twice"
            self.ends[request.sequence] = End(self.world.now_s, service_s, answered, texts)


def batched(offered: Sequence[Offered], slots: int = 1, of: Variant = BATCHING) -> Watched:
    """Play requests on a batching replica with a core for each slot."""
    world = World(slots, seed=1)
    watched = Watched(world, BatchingReplica(world, of, slots))
    world.play(offered, watched)
    return watched


@dataclass
class Together(Watched):
    """Sends the requests that arrive at one instant as one batch."""

    gathered: list[Offered] = field(default_factory=list)

    def arrived(self, request: Offered) -> None:
        self.gathered.append(request)
        self.world.after(0.0, self._enter)

    def _enter(self) -> None:
        if self.gathered:
            self.replica.enter(self.gathered, self._told)
            self.gathered = []


def together(offered: Sequence[Offered], slots: int = 1) -> Together:
    """Play batches on a batching replica with a core for each slot: requests of one instant are one batch."""
    world = World(slots, seed=1)
    watched = Together(world, BatchingReplica(world, BATCHING, slots))
    world.play(offered, watched)
    return watched


def shared(offered: Sequence[Offered], slots: int = 1, of: Variant = SUMMARIZER) -> Watched:
    """Play requests on a sharing replica with a core for each slot."""
    world = World(slots, seed=1)
    watched = Watched(world, SharingReplica(world, of, slots))
    world.play(offered, watched)
    return watched
