"""One scrape of the whole application: asks every process at once, names the silent ones, adds deployments' states.

It knows no Ray: how processes are asked and states are read is handed in. None of it is on the request path, and no
scrape takes longer than the time a replica is given to answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TypeAlias

from deployments.asking import ANSWER_WITHIN_S
from deployments.replica.variant import VariantRejected
from gateway.model.deadline import Clock
from gateway.observability.metrics import Process, SeenDeployment, application_text, one_scrape

STATES_AGE_S = 5.0
"""How old the deployments' states in a scrape may be: reading them costs the controller some work."""

Ask: TypeAlias = Callable[[str], Awaitable[Sequence[object | None]]]
"""Asks every process of a deployment for its metrics, and gives a `Process` for each, None for a silent one. The answer
is empty if no process is known to be up."""


@dataclass(frozen=True, slots=True)
class Status:
    """One deployment as Ray Serve sees it: its state, how many replicas are in each state, and its message."""

    deployment: str
    state: str
    replicas: Mapping[str, int]
    message: str


class DeploymentStates:
    """Reads the states of the deployments on a thread, and waits for them no longer than for a replica."""

    def __init__(
        self,
        read: Callable[[], Sequence[Status]],
        checkpoints: Collection[str],
        clock: Clock,
        within_s: float = ANSWER_WITHIN_S,
    ) -> None:
        """`read` blocks, and gives nothing if it knows nothing; `checkpoints` are the deployments with a self-test."""
        self._read = read
        self._checkpoints = checkpoints
        self._clock = clock
        self._within_s = within_s
        self._reading: asyncio.Task[None] | None = None
        self._read_s = float("-inf")
        self._rejected: set[str] = set()
        self._seen: Sequence[SeenDeployment] = ()

    async def seen(self) -> Sequence[SeenDeployment]:
        """The latest states that are known. The first call waits for them."""
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
    """Gathers the metrics of every process. Scrapes that come while one is under way share it."""

    def __init__(self, deployments: Sequence[str], ask: Ask, states: DeploymentStates, clock: Clock) -> None:
        self._ask = ask
        self._states = states
        self._clock = clock
        self._known: dict[str, Set[str]] = {deployment: frozenset() for deployment in deployments}
        """The processes of each deployment that are known, from their latest answers."""
        self._under_way: asyncio.Task[bytes] | None = None

    async def gather(self) -> bytes:
        """One exposition of all processes that answer in time."""
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._gathered())
        return await asyncio.shield(self._under_way)  # a client that leaves does not end it for the others

    async def _gathered(self) -> bytes:
        began_s = self._clock()
        told, seen = await asyncio.gather(asyncio.gather(*map(self._of, self._known)), self._states.seen())
        processes = [process for group in told for process in group]
        return one_scrape(processes, application_text(seen), self._clock() - began_s)

    async def _of(self, deployment: str) -> list[Process]:
        """Every process of a deployment: its metrics, or that it is silent.

        Ray does not say who is silent, only that somebody is. All that answered earlier and do not answer now then
        count as silent, the dead among them, until nobody is silent.
        """
        answers = await self._ask(deployment)
        told = [answer for answer in answers if isinstance(answer, Process)]
        names = {process.replica for process in told}
        missing: list[str] = []
        if not answers or len(told) < len(answers):
            missing = sorted(self._known[deployment] - names) or [""]  # a process that never answered has no name yet
        self._known[deployment] = names.union(filter(None, missing))
        return [*told, *(Process(name, deployment, None) for name in missing)]
