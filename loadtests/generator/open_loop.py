"""The open loop: sends every call at its intended send time, whatever became of earlier calls.

Bodies and headers are built before the run and replies are parsed after it, so the event loop does little. The
generator is a separate process, at high priority if permitted, so that progress output never delays a send.
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
"""A refused request with less budget left than this is not sent again: it cannot be in time."""


class GeneratorFailed(LoadTestError):
    """The generator's process ended before it returned its results."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A call, its reply, and their times in seconds since the start of the run."""

    call: Call
    reply: Reply | NoReply | Hung
    sent_s: float
    ended_s: float
    shadow: Shadow | None = None


@asynccontextmanager
async def clients_of(url: str, tasks: Sequence[str], within_s: float) -> AsyncIterator[Mapping[str, Client]]:
    """A client for each task's endpoint, with as many kept connections as there are concurrent requests."""
    async with AsyncExitStack() as stack:
        yield {task: await stack.enter_async_context(http_client(f"{url}/{task}", within_s)) for task in tasks}


async def fired(clients: Mapping[str, Client], calls: Sequence[Call], clock: Clock) -> list[Result]:
    """Sends every call when it is due and waits for all to end; returns one result a call, in the same order."""
    start_s = clock()
    tasks: list[asyncio.Task[_Seen]] = []
    loop = asyncio.get_running_loop()

    def send(place: int) -> None:
        call = calls[place]
        tasks.append(loop.create_task(_sent(clients[call.task], call, lambda: clock() - start_s)))

    await paced([call.due_s for call in calls], send, start_s, clock)
    return [_result(seen) for seen in await asyncio.gather(*tasks)]


async def paced(due_s: Sequence[float], send: Callable[[int], None], start_s: float, clock: Clock) -> None:
    """Calls `send` on the event loop with each index at its time, in seconds from `start_s`; returns after the last.

    A separate thread keeps the time, because the event loop's timers are only accurate to a millisecond.
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
    """Sends a refused call again, best effort, with the rest of its budget; it is late if there is none."""
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
"""The niceness requested; without the privilege for it the generator runs at normal priority."""

SWITCH_S = 0.0005
"""The interpreter's switch interval; Python's default of 5 ms would delay sends."""

TICK_S = 0.1
END_WITHIN_S = 5.0


@dataclass(frozen=True)
class Order:
    """The calls of one run; a call without an answer within `within_s` of its send has failed."""

    url: str
    calls: Sequence[Call]
    within_s: float


Fire: TypeAlias = Callable[[Order, Callable[[float], None]], list[Result]]
"""Sends an order and returns its results; reports the age of the run in seconds meanwhile."""


class Generator:
    """A handle on the generator's process, made by `generating`."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self._process = process
        self._pipe = pipe

    def fire(self, order: Order, tick: Callable[[float], None]) -> list[Result]:
        """Sends all calls and waits for all to end. Raises GeneratorFailed.

        `tick` gets the age of the run in seconds, about every 0.1 s.
        """
        try:
            self._pipe.send(order)
            self._pipe.recv()  # its clock has started
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
    """Starts a generator process and ends it on exit."""
    context = multiprocessing.get_context("spawn")  # inherits no threads or event loops
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
    """Tunes the calling process as a generator: priority, thread switching, open connections."""
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
    """Sends with the garbage collector off: its longest pauses exceed the bound on late sends."""
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
