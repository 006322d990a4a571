"""A gateway whose cores are taken: requests have to wait for them until a test opens the gate of the replicas."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from fakes import EVEN, GRAND, MEDIANS_S, SWIFT, TERMS, FakeBackend, FakeClock, Kept, catalog, cell, manifest
from waiting import until
from worlds import World

from gateway.forecasting.load import LoadTracker
from gateway.model.deadline import Clock
from gateway.model.messages import Answer, Failure, LoadReport, Work
from gateway.model.profile import ProfileDocument
from gateway.model.request import Terms
from gateway.router import Router
from gateway.service import Finished, Service

PATIENT = replace(TERMS, budget_s=60.0)


@dataclass
class RunningClock(FakeClock):
    """The loop's own clock, and what it is advanced by."""

    def __call__(self) -> float:
        """The time."""
        return self.now_s + asyncio.get_running_loop().time()


@dataclass
class Gated(FakeBackend):
    """Replicas that answer when the gate is opened."""

    def __post_init__(self) -> None:
        self.gate = asyncio.Event()

    async def dispatch(self, checkpoint: str, work: Work, service_time_s: float) -> Answer | Failure:
        """Waits for the gate, then behaves."""
        answer = super().dispatch(checkpoint, work, service_time_s)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            answer.close()
            self.cancelled += 1
            raise
        return await answer


def crowded(clock: FakeClock | None = None, cores: float = 1.0) -> World:
    """A gateway with one core, whose replicas answer nobody until the gate is opened. A run takes as long for many."""
    clock, load, kept, made = clock or RunningClock(), LoadTracker(), Kept(), catalog()
    manifests = {}
    for name, median_s in MEDIANS_S.items():
        cells = tuple(cell(batch, tokens, median_s) for batch in (1, 2, 4, 8) for tokens in (16, 64))
        profile = ProfileDocument(threads=1, measured_on="nothing", cells=cells)
        manifests[name] = manifest(name, median_s).model_copy(update={"profile": profile})
    served = manifests
    backend = Gated()
    read: Clock = clock
    told = World(
        made, clock, load, backend, kept, Service(Router(made, served, load, read), backend, load, 1024, (kept,), read)
    )
    for name in (SWIFT, EVEN, GRAND):
        load.reported(name, "replica", LoadReport(0.0, 0, cores=cores), clock())
    return told


def opened(told: World) -> None:
    """The replicas answer from now on."""
    assert isinstance(told.backend, Gated)
    told.backend.gate.set()


async def busy(told: World) -> asyncio.Task[Finished]:
    """The one core is taken by a request that has been sent and is not yet answered."""
    running = sent(told, PATIENT)
    await until(lambda: under_way(told) == 1)
    return running


def under_way(told: World) -> int:
    """Runs of the room that have begun and not ended."""
    return len(told.service.router.task_routers["classify"].scheduler._under_way)


def waiting(told: World) -> int:
    """Requests in the room."""
    return len(told.service.router.task_routers["classify"].scheduler)


def sent(told: World, terms: Terms) -> asyncio.Task[Finished]:
    """A request under way."""
    return asyncio.create_task(told.service.handle(told.request(terms)))


async def over(*tasks: asyncio.Task[Finished]) -> None:
    """Ends what a test left."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
