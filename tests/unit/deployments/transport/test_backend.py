"""The gateway's backend over real sockets: how replicas are chosen, lost and found again, and what closing leaves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fakes import dispatched
from virtual_time import loop_clock, passes
from waiting import until

from deployments.transport import Endpoint, TransportServer, UnixAddress
from deployments.transport.client import SETTLED_S, TransportBackend
from gateway.forecasting.load import LoadTracker
from gateway.model.messages import Answer, Emit, Failure, FailureKind, InputReport, LoadReport, ReplicaTimings, Work
from gateway.tasks.classify import ClassifyParameters

pytestmark = pytest.mark.virtual_time

WORK = Work("classify", ("hello",), ClassifyParameters(), remaining_s=1.0, strict=True, request_id="r")


@dataclass
class FakeDirectory:
    """A `Directory` whose content a test sets."""

    known: dict[str, list[Endpoint]] = field(default_factory=dict)
    asked: int = 0

    async def endpoints(self, checkpoint: str) -> Sequence[Endpoint]:
        """The endpoints that were set."""
        self.asked += 1
        return self.known.get(checkpoint, [])


@dataclass
class Played:
    """A real server that answers with its own name, or hangs."""

    name: str
    directory: Path
    backlog_s: float = 0.0
    hangs: bool = False
    begun: int = 0
    cancelled: int = 0

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint where the replica listens."""
        return Endpoint(self.name, "here", UnixAddress(str(self.directory / self.name)))

    async def handle(self, batch: Sequence[Work], emit: Emit) -> Sequence[Answer]:
        """Answers each request with its name."""
        self.begun += 1
        try:
            if self.hangs:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        outputs = ([{"label": self.name, "score": 1.0}],)
        return [Answer(outputs, InputReport(1, 1, False), ReplicaTimings(0.0, 0.0, 0.0, 1))] * len(batch)

    def load(self) -> LoadReport:
        """The load that the replica reports."""
        return LoadReport(self.backlog_s, 0)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[TransportServer]:
        """The replica's server, while the context lasts."""
        server = TransportServer(self.handle, self.load)
        await server.start(self.endpoint.unix)
        try:
            yield server
        finally:
            await server.close()


@dataclass
class Door:
    """A backend with its directory and load tracker."""

    backend: TransportBackend
    load: LoadTracker
    directory: FakeDirectory

    async def results(self, size: int = 1) -> list[Answer | Failure]:
        """The results of a batch."""
        return await dispatched(self.backend, *[WORK] * size, service_time_s=0.01)

    async def answered_by(self) -> str:
        """The name of the replica that answers a request, or the failure."""
        (result,) = await self.results()
        if not isinstance(result, Answer):
            return f"{result.kind}: {result.detail}"
        [scores] = result.outputs
        label: str = scores[0]["label"]
        return label


@asynccontextmanager
async def door(*replicas: Played, expected: int = 1) -> AsyncIterator[Door]:
    """A backend for the checkpoint `c`, started with a directory of these replicas."""
    load, directory = LoadTracker(), FakeDirectory({"c": [replica.endpoint for replica in replicas]})
    backend = TransportBackend({"c": expected}, directory, load, "here", loop_clock(), random.Random(1))
    backend.start()
    try:
        yield Door(backend, load, directory)
    finally:
        await backend.close()


async def test_a_replica_that_the_directory_knows_is_connected_and_used(tmp_path: Path) -> None:
    """A replica in the directory is connected, is up in the load tracker, and gets batches."""
    replica = Played("a", tmp_path)
    async with replica.listening(), door(replica) as opened:
        await until(lambda: opened.load.replicas("c") == 1)
        assert await opened.answered_by() == "a"


async def test_work_goes_to_the_least_loaded(tmp_path: Path) -> None:
    """A request goes to the replica with the least reported backlog, and is spread over equal ones."""
    busy, idle, other = Played("a", tmp_path, backlog_s=30.0), Played("b", tmp_path), Played("c", tmp_path)
    async with busy.listening(), idle.listening(), other.listening(), door(busy, idle, other, expected=3) as opened:
        await until(lambda: opened.load.replicas("c") == 3)
        names = await asyncio.gather(*(opened.answered_by() for _ in range(10)))
        assert set(names) == {"b", "c"} and busy.begun == 0


async def test_nobody_to_ask_is_told_at_once() -> None:
    """Without a replica work is UNAVAILABLE at once."""
    async with door() as opened:
        began_s = loop_clock()()
        results = await opened.results(size=3)
        assert loop_clock()() == began_s
        assert [one.kind for one in results if isinstance(one, Failure)] == [FailureKind.UNAVAILABLE] * 3


async def test_results_never_come_within_a_dispatch_nor_after_its_cancel(tmp_path: Path) -> None:
    """With a replica and without one, results come in a later turn of the loop, and never once it is cancelled."""
    replica = Played("a", tmp_path)
    async with replica.listening(), door(replica) as opened, door() as empty:
        await until(lambda: opened.load.replicas("c") == 1)
        for backend in (opened.backend, empty.backend):
            await ends_later(backend)


async def ends_later(backend: TransportBackend) -> None:
    """Dispatches two batches and cancels one: the other alone has results, and in a later turn."""
    ends: list[str] = []
    backend.dispatch("c", [WORK], 0.01, lambda results: ends.append("kept"))
    cancel = backend.dispatch("c", [WORK], 0.01, lambda results: ends.append("left"))
    assert ends == []
    cancel()
    await until(lambda: ends == ["kept"])
    await passes(1.0)
    assert ends == ["kept"]


async def test_a_batch_goes_to_one_replica_whole(tmp_path: Path) -> None:
    """A batch goes whole to the least loaded replica, and its forecast counts as that replica's load at once."""
    one, other = Played("a", tmp_path), Played("b", tmp_path)
    async with one.listening(), other.listening(), door(one, other, expected=2) as opened:
        await until(lambda: opened.load.replicas("c") == 2)
        first, second = await asyncio.gather(opened.results(size=3), opened.results(size=2))
        assert {len(first), len(second)} == {3, 2} and all(isinstance(one, Answer) for one in (*first, *second))
        assert (one.begun, other.begun) == (1, 1)


async def test_a_replica_that_goes_away_fails_its_work_at_once_and_is_connected_again(tmp_path: Path) -> None:
    """Work on a replica that goes away is UNAVAILABLE at once, and the replica is used again when it is back."""
    replica = Played("a", tmp_path, hangs=True)
    async with door(replica) as opened:
        async with replica.listening():
            await until(lambda: opened.load.replicas("c") == 1)
            pending = asyncio.create_task(opened.answered_by())
            await until(lambda: replica.begun == 1)
            began_s = loop_clock()()
        assert (await pending).startswith("unavailable")
        assert loop_clock()() == began_s and opened.load.replicas("c") == 0
        assert (await opened.answered_by()).startswith("unavailable")
        replica.hangs = False
        async with replica.listening():
            await until(lambda: opened.load.replicas("c") == 1)
            assert await opened.answered_by() == "a"


async def test_the_others_go_on_when_one_is_lost(tmp_path: Path) -> None:
    """Work that failed with a dead replica succeeds when it is sent again, because the dead one is no candidate."""
    dying, living = Played("a", tmp_path, hangs=True), Played("b", tmp_path, backlog_s=30.0)
    async with living.listening(), door(dying, living, expected=2) as opened:
        async with dying.listening():
            await until(lambda: opened.load.replicas("c") == 2)
            pending = asyncio.create_task(opened.answered_by())
            await until(lambda: dying.begun == 1)
        assert (await pending).startswith("unavailable")
        assert await opened.answered_by() == "b"


async def test_a_draining_replica_gets_no_new_work(tmp_path: Path) -> None:
    """A replica that drains gets no new work as soon as it says so."""
    one, other = Played("a", tmp_path), Played("b", tmp_path, backlog_s=30.0)
    async with one.listening() as server, other.listening(), door(one, other, expected=2) as opened:
        await until(lambda: opened.load.replicas("c") == 2)
        await server.drain(grace_s=0.0)
        await until(lambda: opened.load.replicas("c") == 1)
        assert await opened.answered_by() == "b"


async def test_a_successor_under_another_name_is_found(tmp_path: Path) -> None:
    """A replica that was replaced is forgotten, and its successor is connected soon."""
    old, new = Played("a", tmp_path), Played("b", tmp_path)
    async with door(old) as opened:
        async with old.listening():
            await until(lambda: opened.load.replicas("c") == 1)
            opened.directory.known["c"] = [new.endpoint]
        await until(lambda: opened.load.replicas("c") == 0)
        async with new.listening():
            await until(lambda: opened.load.replicas("c") == 1)
            assert await opened.answered_by() == "b"


async def test_cancelling_a_dispatch_reaches_the_replica(tmp_path: Path) -> None:
    """Cancelling a dispatch ends the waiting at the gateway and the work on the replica."""
    replica = Played("a", tmp_path, hangs=True)
    async with replica.listening(), door(replica) as opened:
        await until(lambda: opened.load.replicas("c") == 1)
        pending = asyncio.create_task(opened.answered_by())
        await until(lambda: replica.begun == 1)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        await until(lambda: replica.cancelled == 1)
        replica.hangs = False
        assert await opened.answered_by() == "a"


async def test_a_settled_backend_leaves_the_directory_in_peace(tmp_path: Path) -> None:
    """A directory is hardly asked while every expected replica is connected, since a broadcast costs."""
    replica = Played("a", tmp_path)
    async with replica.listening(), door(replica) as settled, door(replica, expected=2) as unsettled:
        await until(lambda: settled.load.replicas("c") == 1 and settled.directory.asked >= 2)
        asked, asked_there = settled.directory.asked, unsettled.directory.asked
        await passes(0.9 * SETTLED_S)
        assert settled.directory.asked == asked
        assert unsettled.directory.asked >= asked_there + 4


async def test_closing_leaves_nothing_running(tmp_path: Path) -> None:
    """After `close` no task is left, connected or not, and pending work is UNAVAILABLE."""
    replica, absent = Played("a", tmp_path, hangs=True), Played("b", tmp_path)
    before = asyncio.all_tasks()
    async with replica.listening() as server:
        async with door(replica, absent, expected=2) as opened:
            await until(lambda: opened.load.replicas("c") == 1)
            pending = asyncio.create_task(opened.answered_by())
            await until(lambda: replica.begun == 1)
        assert (await pending).startswith("unavailable")
        await until(lambda: server.in_flight == 0)
        assert asyncio.all_tasks() == before
        assert opened.load.replicas("c") == 0
