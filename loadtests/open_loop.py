"""Open-loop load: arrivals that do not wait for answers, each counted once by how it ended.

Latency counts from the intended send time, so a server that stalls is charged for every request it kept waiting. The
generator watches itself: a run in which it sent late is not valid, whatever the server did.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from time import perf_counter

import msgspec
import uvloop

from gateway.api.headers import BUDGET, CHECKPOINT
from loadtests.client import Client, Hung, NoReply, Reply, http_client

Clock = Callable[[], float]


class Ending(StrEnum):
    """How one offered request ended, seen from the client. An answer is in time where no budget was granted."""

    IN_TIME = "in_time"
    LATE = "late"
    REFUSED = "refused"
    FAILED = "failed"
    HUNG = "hung"


@dataclass(frozen=True)
class LoadSettings:
    """Seeded Poisson arrivals at `rate` a second for `seconds`; a request without an answer for `hang_s` is hung.

    `lag_bound_s`: the run is valid while at least 99 % of the requests are sent no later than this.
    """

    rate: float
    seconds: float
    budget_ms: float | None = None
    seed: int = 7
    hang_s: float = 10.0
    lag_bound_s: float = 0.010
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Shot:
    """One offered request: seconds since the run began, latency since it was due, and its ending.

    `detail` is the problem's code where it was refused, else what went wrong; `checkpoint` is who answered.
    """

    due_s: float
    sent_s: float
    latency_s: float
    ending: Ending
    detail: str = ""
    checkpoint: str = ""

    @property
    def lag_s(self) -> float:
        """How late the generator itself was."""
        return self.sent_s - self.due_s


def arrivals(rate: float, seconds: float, chance: random.Random) -> Iterator[float]:
    """The instants of a Poisson process of that rate, from 0 up to `seconds`. Equal seeds, equal instants."""
    at = chance.expovariate(rate)
    while at < seconds:
        yield at
        at += chance.expovariate(rate)


def offer(url: str, bodies: Sequence[bytes], settings: LoadSettings, clock: Clock = perf_counter) -> list[Shot]:
    """Offers the load to one URL, the bodies in turn, and waits for the last ending. Blocking."""

    async def run() -> list[Shot]:
        async with http_client(url, settings.hang_s) as client:
            return await offered(client, bodies, settings, clock)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


async def offered(client: Client, bodies: Sequence[bytes], settings: LoadSettings, clock: Clock) -> list[Shot]:
    """Every shot, in the order they were due.

    A thread of its own keeps the time, since the event loop's timers are only good to a millisecond.
    """
    due = list(arrivals(settings.rate, settings.seconds, random.Random(settings.seed)))
    supply = itertools.cycle(bodies)
    headers = dict(settings.headers)
    if settings.budget_ms is not None:
        headers[BUDGET] = f"{settings.budget_ms:g}"
    loop = asyncio.get_running_loop()
    stop = threading.Event()
    shots: list[asyncio.Task[Shot]] = []
    start_s = clock()

    async def shoot(due_s: float) -> Shot:
        sent_s = clock() - start_s
        try:
            reply: Reply | NoReply | Hung = await client.post(next(supply), headers)
        except (NoReply, Hung) as error:
            reply = error
        return ended(reply, due_s, sent_s, clock() - start_s - due_s, settings.budget_ms)

    def send(due_s: float) -> None:
        shots.append(loop.create_task(shoot(due_s)))

    def slowdown() -> None:
        for due_s in due:
            wait_s = start_s + due_s - clock()
            if stop.is_set() or (wait_s > 0 and stop.wait(wait_s)):
                return
            loop.call_soon_threadsafe(send, due_s)

    try:
        await asyncio.to_thread(slowdown)
        return await asyncio.gather(*shots)
    finally:
        stop.set()


def ended(
    reply: Reply | NoReply | Hung, due_s: float, sent_s: float, latency_s: float, budget_ms: float | None
) -> Shot:
    """Classifies one ending. Refused is what a server says no to in words: a problem with a code, other than a 500."""
    if isinstance(reply, Hung):
        return Shot(due_s, sent_s, latency_s, Ending.HUNG)
    if isinstance(reply, NoReply):
        return Shot(due_s, sent_s, latency_s, Ending.FAILED, str(reply))
    checkpoint = reply.headers.get(CHECKPOINT.lower(), "")
    if reply.status == 200:
        late = budget_ms is not None and latency_s > budget_ms / 1000
        return Shot(due_s, sent_s, latency_s, Ending.LATE if late else Ending.IN_TIME, checkpoint=checkpoint)
    code = _problem_code(reply)
    refused = code is not None and reply.status != 500
    detail = code if refused and code else f"{reply.status} {code or 'without a code'}"
    return Shot(due_s, sent_s, latency_s, Ending.REFUSED if refused else Ending.FAILED, detail, checkpoint)


class _Problem(msgspec.Struct):
    code: str


def _problem_code(reply: Reply) -> str | None:
    try:
        return msgspec.json.decode(reply.body, type=_Problem).code
    except msgspec.DecodeError:
        return None
