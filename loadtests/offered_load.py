"""Open-loop load of one kind of request: arrivals do not wait for answers, and each request has one outcome.

Latency counts from the intended send time, so a stall delays every request that was due during it. A run in which the
generator sent late is not valid, whatever the server did.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from time import perf_counter

import msgspec
import numpy as np
import uvloop

from gateway.model.request import BUDGET, CHECKPOINT
from loadtests.client import Client, Hung, NoReply, Reply, http_client

Clock = Callable[[], float]


class Ending(StrEnum):
    """The outcome of one offered request for the client. Without a budget every answer is in time."""

    IN_TIME = "in_time"
    LATE = "late"
    REFUSED = "refused"
    FAILED = "failed"
    HUNG = "hung"


ANSWERED = (Ending.IN_TIME, Ending.LATE)


@dataclass(frozen=True)
class LoadSettings:
    """Poisson arrivals at `rate` per second for `seconds`, seeded; a request without an answer for `hang_s` is hung.

    `lag_bound_s`: the run is valid if at least 99 % of the requests are sent at most this late.
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
    """One offered request: times since the start of the run, latency since it was due (seconds), and its outcome.

    `detail` is the problem's code of a refusal, else the fault; `checkpoint` is the one that answered.
    """

    due_s: float
    sent_s: float
    latency_s: float
    ending: Ending
    detail: str = ""
    checkpoint: str = ""

    @property
    def lag_s(self) -> float:
        """How late the generator sent the request, in seconds."""
        return self.sent_s - self.due_s


def arrivals(rate: float, seconds: float, chance: random.Random) -> Iterator[float]:
    """The times of a Poisson process of this rate, from 0 to `seconds`. Equal seeds give equal times."""
    at = chance.expovariate(rate)
    while at < seconds:
        yield at
        at += chance.expovariate(rate)


def offer(url: str, bodies: Sequence[bytes], settings: LoadSettings, clock: Clock = perf_counter) -> list[Shot]:
    """Sends the load to one URL, cycling through the bodies, and waits for all to end. Blocks."""

    async def run() -> list[Shot]:
        async with http_client(url, settings.hang_s) as client:
            return await offered(client, bodies, settings, clock)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


async def offered(client: Client, bodies: Sequence[bytes], settings: LoadSettings, clock: Clock) -> list[Shot]:
    """Sends the load; returns every shot, in the order they were due."""
    due = list(arrivals(settings.rate, settings.seconds, random.Random(settings.seed)))
    supply = itertools.cycle(bodies)
    headers = dict(settings.headers)
    if settings.budget_ms is not None:
        headers[BUDGET] = f"{settings.budget_ms:g}"
    shots: list[asyncio.Task[Shot]] = []
    start_s = clock()

    async def shoot(due_s: float) -> Shot:
        sent_s = clock() - start_s
        try:
            reply: Reply | NoReply | Hung = await client.post(next(supply), headers)
        except (NoReply, Hung) as error:
            reply = error
        return ended(reply, due_s, sent_s, clock() - start_s - due_s, settings.budget_ms)

    def send(number: int) -> None:
        shots.append(asyncio.create_task(shoot(due[number])))

    await paced(due, send, start_s, clock)
    return await asyncio.gather(*shots)


async def paced(due_s: Sequence[float], send: Callable[[int], object], start_s: float, clock: Clock) -> None:
    """Calls `send` on the event loop with the index of each time when it is due; returns after the last.

    Times are seconds since `start_s`. A separate thread keeps them, because the event loop's timers are only accurate
    to a millisecond.
    """
    loop = asyncio.get_running_loop()
    stop = threading.Event()

    def slowdown() -> None:
        for number, at_s in enumerate(due_s):
            wait_s = start_s + at_s - clock()
            if stop.is_set() or (wait_s > 0 and stop.wait(wait_s)):
                return
            loop.call_soon_threadsafe(send, number)

    try:
        await asyncio.to_thread(slowdown)
    finally:
        stop.set()


def ended(
    reply: Reply | NoReply | Hung, due_s: float, sent_s: float, latency_s: float, budget_ms: float | None
) -> Shot:
    """Classifies a reply. Refused means a problem document with a code, other than a 500."""
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


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of durations, in seconds."""

    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float

    @classmethod
    def of(cls, values_s: Sequence[float]) -> Quantiles | None:
        """The quantiles, or None for no values."""
        if not values_s:
            return None
        p50, p95, p99, most = (float(value) for value in np.percentile(values_s, (50, 95, 99, 100)))
        return cls(p50, p95, p99, most)

    def __str__(self) -> str:
        values = {"p50": self.p50_s, "p95": self.p95_s, "p99": self.p99_s, "max": self.max_s}
        return ", ".join(f"{name} {value * 1000:.2f} ms" for name, value in values.items())


@dataclass(frozen=True)
class LoadReport:
    """One run. The counts of outcomes add up to `offered`; `by_second` has them by the second they were due in."""

    settings: LoadSettings
    offered: int
    endings: dict[Ending, int]
    refused: dict[str, int]
    failed: dict[str, int]
    checkpoints: dict[str, int]
    latency: Quantiles | None
    lag: Quantiles | None
    by_second: tuple[dict[Ending, int], ...]

    @property
    def attainment(self) -> float:
        """Answers in time / requests offered; refused, failed and hung ones count against it."""
        return self.endings[Ending.IN_TIME] / self.offered if self.offered else 0.0

    @property
    def goodput(self) -> float:
        """Answers in time per second."""
        return self.endings[Ending.IN_TIME] / self.settings.seconds

    @property
    def valid(self) -> bool:
        """True if the generator sent on time, so that the figures are the server's."""
        return self.lag is not None and self.lag.p99_s <= self.settings.lag_bound_s


def summarised(shots: Sequence[Shot], settings: LoadSettings) -> LoadReport:
    """Counts the shots of a run into a report."""
    seconds: list[Counter[Ending]] = [Counter() for _ in range(int(settings.seconds) + 1)]
    for shot in shots:
        seconds[int(shot.due_s)][shot.ending] += 1
    while seconds and not seconds[-1]:
        seconds.pop()
    total = sum(seconds, Counter[Ending]())
    return LoadReport(
        settings=settings,
        offered=len(shots),
        endings={ending: total[ending] for ending in Ending},
        refused=dict(Counter(shot.detail for shot in shots if shot.ending is Ending.REFUSED)),
        failed=dict(Counter(shot.detail for shot in shots if shot.ending is Ending.FAILED)),
        checkpoints=dict(Counter(shot.checkpoint for shot in shots if shot.checkpoint and shot.ending in ANSWERED)),
        latency=Quantiles.of([shot.latency_s for shot in shots if shot.ending in ANSWERED]),
        lag=Quantiles.of([shot.lag_s for shot in shots]),
        by_second=tuple({ending: count[ending] for ending in Ending if count[ending]} for count in seconds),
    )
