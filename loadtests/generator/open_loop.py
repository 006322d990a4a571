"""The open loop: every call is sent when it is due, whatever became of those before it.

Bodies and headers are ready beforehand, and headers are read once a run is over, so that a reply costs the loop
little. The generator has a process of its own, urgent where the system allows it: what shows progress never delays a
send.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import resource
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from time import perf_counter
from typing import TypeAlias

import uvloop

from gateway.model.request import BUDGET, MODE
from loadtests.client import Client, Hung, NoReply, Reply, http_client
from loadtests.errors import LoadTestError
from loadtests.generator.calls import BEST_EFFORT, Call, budget_text
from loadtests.generator.results import Result, Shadow, fate_of, result_of_call
from loadtests.workload.arrivals import Fate

Clock: TypeAlias = Callable[[], float]

LEAST_BUDGET_S = 0.001
"""With less than this left, a refused request is not sent once more: it cannot be in time."""


class GeneratorFailed(LoadTestError):
    """The process that sends the requests ended before it gave its results."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A call, what came back, and when, in seconds since the run began."""

    call: Call
    reply: Reply | NoReply | Hung
    sent_s: float
    ended_s: float
    shadow: Shadow | None = None


@asynccontextmanager
async def clients_of(url: str, tasks: Sequence[str], within_s: float) -> AsyncIterator[Mapping[str, Client]]:
    """A client for each task's endpoint, over as many kept connections as are needed at once."""
    async with AsyncExitStack() as stack:
        yield {task: await stack.enter_async_context(http_client(f"{url}/{task}", within_s)) for task in tasks}


async def fired(clients: Mapping[str, Client], calls: Sequence[Call], clock: Clock) -> list[Result]:
    """Sends every call, in the order they are due, and waits for the last end. One result a call, in that order."""
    start_s = clock()
    tasks: list[asyncio.Task[_Seen]] = []
    loop = asyncio.get_running_loop()

    def send(place: int) -> None:
        call = calls[place]
        tasks.append(loop.create_task(_sent(clients[call.task], call, lambda: clock() - start_s)))

    await paced([call.due_s for call in calls], send, start_s, clock)
    return [_result(seen) for seen in await asyncio.gather(*tasks)]


async def paced(due_s: Sequence[float], send: Callable[[int], None], start_s: float, clock: Clock) -> None:
    """Has the loop call `send` with each place at its instant, in seconds from `start_s`; returns with the last.

    A thread of its own keeps the time, since the event loop's timers are only good to a millisecond.
    """
    loop = asyncio.get_running_loop()
    stop = threading.Event()

    def slowdown() -> None:
        for place, at_s in enumerate(due_s):
            wait_s = start_s + at_s - clock()
            if stop.is_set() or (wait_s > 0 and stop.wait(wait_s)):
                return
            loop.call_soon_threadsafe(send, place)

    try:
        await asyncio.to_thread(slowdown)
    finally:
        stop.set()


async def _sent(client: Client, call: Call, now_s: Clock) -> _Seen:
    sent_s = now_s()
    reply = await _asked(client, call.body, call.headers)
    seen = _Seen(call, reply, sent_s, now_s())
    if not call.shadowed or fate_of(reply, 0.0, call.budget_s)[0] is not Fate.REFUSED:
        return seen
    return replace(seen, shadow=await _shadow(client, call, now_s))


async def _shadow(client: Client, call: Call, now_s: Clock) -> Shadow:
    """Best effort, with what is left of the budget. Without anything left it is late already."""
    left_s = call.due_s + call.budget_s - now_s()
    if left_s < LEAST_BUDGET_S:
        return Shadow(Fate.LATE, now_s() - call.due_s)
    reply = await _asked(client, call.body, {**call.headers, MODE: BEST_EFFORT, BUDGET: budget_text(left_s)})
    latency_s = now_s() - call.due_s
    return Shadow(fate_of(reply, latency_s, call.budget_s)[0], latency_s)


async def _asked(client: Client, body: bytes, headers: Mapping[str, str]) -> Reply | NoReply | Hung:
    try:
        return await client.post(body, headers)
    except (NoReply, Hung) as error:
        return error


def _result(seen: _Seen) -> Result:
    result = result_of_call(seen.call, seen.reply, seen.sent_s, seen.ended_s - seen.call.due_s)
    return result if seen.shadow is None else replace(result, shadow=seen.shadow)


URGENCY = -10
"""The niceness that is asked for; it takes a privilege, and without it the generator runs as everything else."""

SWITCH_S = 0.0005
"""How soon the thread that keeps the time has the interpreter, once it is due; Python's own 5 ms would be lag."""

TICK_S = 0.1
END_WITHIN_S = 5.0


@dataclass(frozen=True)
class Order:
    """Calls to send to a gateway; one without an answer for `within_s` since it was sent has failed."""

    url: str
    calls: Sequence[Call]
    within_s: float


Fire: TypeAlias = Callable[[Order, Callable[[float], None]], list[Result]]
"""Sends an order and gives its results back; meanwhile it says how many seconds old the run is."""


class Generator:
    """The generator's process, seen from its owner. `generating` makes one."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self._process = process
        self._pipe = pipe

    def fire(self, order: Order, tick: Callable[[float], None]) -> list[Result]:
        """Sends everything and waits for the last end. Raises GeneratorFailed.

        `tick` gets the age of the run in seconds, about every tenth of a second.
        """
        try:
            self._pipe.send(order)
            self._pipe.recv()  # that its clock runs
            start_s = perf_counter()
            tick(0.0)
            while not self._pipe.poll(TICK_S):
                tick(perf_counter() - start_s)
            results: list[Result] = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(END_WITHIN_S)
            raise GeneratorFailed(f"the generator ended with {self._process.exitcode}") from None
        return results


@contextmanager
def generating() -> Iterator[Generator]:
    """A generator that waits for orders; it is gone afterwards."""
    context = multiprocessing.get_context("spawn")  # nothing of the owner's threads and loops is in it
    ours, its = context.Pipe()
    process = context.Process(target=_serve, args=(its,), name="generator", daemon=True)
    process.start()
    its.close()
    try:
        yield Generator(process, ours)
    finally:
        ours.close()
        process.join(END_WITHIN_S / 10)
        if process.is_alive():
            process.terminate()
            process.join(END_WITHIN_S)


def prepare() -> None:
    """Makes the calling process a better generator: urgent, quick to switch threads, with room for connections."""
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, URGENCY)
    sys.setswitchinterval(SWITCH_S)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _serve(pipe: Connection) -> None:
    prepare()
    with suppress(EOFError, KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        while True:
            order: Order = pipe.recv()
            pipe.send(runner.run(_fired(order, lambda: pipe.send(None))))


async def _fired(order: Order, started: Callable[[], None]) -> list[Result]:
    """Sends with the garbage collector off: its longest pauses exceed what a send may be late."""
    tasks = sorted({call.task for call in order.calls})
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        async with clients_of(order.url, tasks, order.within_s) as clients:
            started()
            return await fired(clients, order.calls, perf_counter)
    finally:
        gc.enable()
        gc.unfreeze()
