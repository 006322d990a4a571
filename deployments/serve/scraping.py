"""Gathers the metrics of the whole application: asks all processes at once, and adds silent ones and states.

The functions that ask processes and read states are handed in, so it imports no Ray. No request waits for a scrape, and
no scrape takes longer than a replica may take to answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TypeAlias

from deployments.replica.variant import VariantRejected
from deployments.serve.asking import ANSWER_WITHIN_S
from gateway.model.deadline import Clock
from gateway.observability.metrics import Process, SeenDeployment, application_text, one_scrape

STATES_AGE_S = 5.0
"""Seconds for which the deployments' states are reused, since reading them is work for Ray's controller."""

Ask: TypeAlias = Callable[[str], Awaitable[Sequence[object | None]]]
"""Asks every process of a deployment for its metrics: a `Process` for each, None for a silent one; empty if no process
is known to be up."""


@dataclass(frozen=True, slots=True)
class Status:
    """One deployment in Ray Serve: its state, the number of replicas in each state, and its message."""

    deployment: str
    state: str
    replicas: Mapping[str, int]
    message: str


class DeploymentStates:
    """Reads the states of deployments on a thread, and waits for them no longer than for a replica."""

    def __init__(
        self,
        read: Callable[[], Sequence[Status]],
        checkpoints: Collection[str],
        clock: Clock,
        within_s: float = ANSWER_WITHIN_S,
    ) -> None:
        """`read` blocks, and gives nothing if Ray is in trouble. `checkpoints` are the deployments with a self-test."""
        self._read = read
        self._checkpoints = checkpoints
        self._clock = clock
        self._within_s = within_s
        self._reading: asyncio.Task[None] | None = None
        self._read_s = float("-inf")
        self._rejected: set[str] = set()
        self._seen: Sequence[SeenDeployment] = ()

    async def seen(self) -> Sequence[SeenDeployment]:
        """Gives the latest known states. The first call waits for them."""
        if self._reading is None and self._clock() - self._read_s > STATES_AGE_S:
            self._reading = asyncio.create_task(self._learn())
        if not self._seen and self._reading is not None:
            await asyncio.wait([self._reading], timeout=self._within_s)
        return self._seen

    async def _learn(self) -> None:
        try:
            statuses = await asyncio.to_thread(self._read)
        finally:
            self._reading, self._read_s = None, self._clock()
        if statuses:
            self._seen = [self._one(status) for status in statuses]

    def _one(self, status: Status) -> SeenDeployment:
        name = status.deployment
        if VariantRejected.__name__ in status.message:
            self._rejected.add(name)
        elif status.state == "healthy":
            self._rejected.discard(name)
        failed = name in self._rejected if name in self._checkpoints else None
        return SeenDeployment(name, status.state, status.replicas, failed)


class ApplicationScrape:
    """Gathers the metrics of all processes. Scrapes that arrive while one is under way share it."""

    def __init__(self, deployments: Sequence[str], ask: Ask, states: DeploymentStates, clock: Clock) -> None:
        self._ask = ask
        self._states = states
        self._clock = clock
        self._known: dict[str, Set[str]] = {deployment: frozenset() for deployment in deployments}
        """The known processes of each deployment, from their latest answers."""
        self._under_way: asyncio.Task[bytes] | None = None

    def add(self, deployment: str) -> None:
        """Asks this deployment as well from the next scrape on."""
        self._known.setdefault(deployment, frozenset())

    async def gather(self) -> bytes:
        """Gives one exposition with all processes that answer in time."""
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._gathered())
        return await asyncio.shield(self._under_way)  # a client that leaves must not end it for others

    async def _gathered(self) -> bytes:
        began_s = self._clock()
        found, seen = await asyncio.gather(asyncio.gather(*map(self._of, self._known)), self._states.seen())
        processes = [process for group in found for process in group]
        return one_scrape(processes, application_text(seen), self._clock() - began_s)

    async def _of(self, deployment: str) -> list[Process]:
        """Gives each process of a deployment, with its metrics or as silent.

        Ray says that a process is silent, but not which. So all processes that answered earlier and do not answer now
        count as silent, even dead ones, until none is silent.
        """
        answers = await self._ask(deployment)
        answered = [answer for answer in answers if isinstance(answer, Process)]
        names = {process.replica for process in answered}
        missing: list[str] = []
        if not answers or len(answered) < len(answers):
            missing = sorted(self._known[deployment] - names) or [""]  # a process that never answered has no name yet
        self._known[deployment] = names.union(filter(None, missing))
        return [*answered, *(Process(name, deployment, None) for name in missing)]
