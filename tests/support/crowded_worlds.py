"""A gateway whose cores are busy: requests have to wait for them until a test opens the replicas' gate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fakes import EVEN, GRAND, MEDIANS_S, SWIFT, TERMS, FakeBackend, FakeClock, Kept, catalog, cell, manifest
from waiting import until
from worlds import World

from gateway.forecasting.load import LoadTracker
from gateway.model.deadline import Clock
from gateway.model.messages import Emit, LoadReport, Work, to_nobody
from gateway.model.profile import ProfileDocument
from gateway.model.request import Terms
from gateway.router import Router
from gateway.scheduling.loop import Result
from gateway.service import Finished, Service

PATIENT = replace(TERMS, budget_s=60.0)


@dataclass
class RunningClock(FakeClock):
    """The time of the event loop plus what the clock has been advanced by."""

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s + asyncio.get_running_loop().time()


@dataclass
class Gated(FakeBackend):
    """Replicas that answer once their gate is open. `sizes` has the number of requests of each batch."""

    def __post_init__(self) -> None:
        self.gate = asyncio.Event()
        self.sizes: list[int] = []

    def dispatch(
        self,
        checkpoint: str,
        batch: Sequence[Work],
        service_time_s: float,
        done: Callable[[Sequence[Result]], None],
        emit: Emit = to_nobody,
    ) -> Callable[[], None]:
        """Wait for the gate, then behave."""
        self.sizes.append(len(batch))
        cancels: list[Callable[[], None]] = []

        async def behind_the_gate() -> None:
            await self.gate.wait()
            cancels.append(super(Gated, self).dispatch(checkpoint, batch, service_time_s, done, emit))

        waiting = asyncio.create_task(behind_the_gate())

        def cancel() -> None:
            waiting.cancel()
            if cancels:
                cancels[0]()
            else:
                self.cancelled += len(batch)

        return cancel


def crowded(clock: FakeClock | None = None, cores: float = 1.0) -> World:
    """Return a gateway with one core and a shut gate. A batch takes as long as a single request."""
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
    """Let the replicas answer from now on."""
    assert isinstance(told.backend, Gated)
    told.backend.gate.set()


async def busy(told: World) -> asyncio.Task[Finished]:
    """Occupy the one core with a request that is dispatched and not yet answered."""
    running = sent(told, PATIENT)
    await until(lambda: under_way(told) == 1)
    return running


def under_way(told: World) -> int:
    """Return the number of batches that run."""
    return len(told.service.router.scheduler.deciders["classify"].queue._under_way)


def waiting(told: World) -> int:
    """Return the number of queued requests."""
    return len(told.service.router.scheduler.deciders["classify"].queue)


def sent(told: World, terms: Terms) -> asyncio.Task[Finished]:
    """Send a request."""
    return asyncio.create_task(told.service.handle(told.request(terms)))


async def over(*tasks: asyncio.Task[Finished]) -> None:
    """Cancel the requests that a test has left."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
