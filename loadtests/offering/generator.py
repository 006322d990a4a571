"""The open loop: every call is sent when it is due, whatever became of those before it.

A thread of its own keeps the time, since the event loop's timers are only good to a millisecond. Bodies and headers
are ready beforehand, and headers are read once a run is over, so that a reply costs the loop little.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from gateway.model.request import BUDGET, MODE
from loadtests.client import Client, Hung, NoReply, Reply, http_client
from loadtests.offered_load import Clock
from loadtests.offering.calls import BEST_EFFORT, Call, budget_text
from loadtests.offering.landings import Landing, Shadow, fate_of, landing_of
from loadtests.simulator.requests import Fate

LEAST_BUDGET_S = 0.001
"""With less than this left, a refused request is not sent once more: it cannot be in time."""


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


async def fired(clients: Mapping[str, Client], calls: Sequence[Call], clock: Clock) -> list[Landing]:
    """Sends every call, in the order they are due, and waits for the last end. One landing a call, in that order."""
    start_s = clock()
    tasks: list[asyncio.Task[_Seen]] = []
    loop = asyncio.get_running_loop()

    def send(call: Call) -> None:
        tasks.append(loop.create_task(_sent(clients[call.task], call, lambda: clock() - start_s)))

    await _paced(calls, send, start_s, clock)
    return [_landing(seen) for seen in await asyncio.gather(*tasks)]


async def _paced(calls: Sequence[Call], send: Callable[[Call], None], start_s: float, clock: Clock) -> None:
    """Has the loop send each call at its instant; returns with the last of them."""
    loop = asyncio.get_running_loop()
    stop = threading.Event()

    def slowdown() -> None:
        for call in calls:
            wait_s = start_s + call.due_s - clock()
            if stop.is_set() or (wait_s > 0 and stop.wait(wait_s)):
                return
            loop.call_soon_threadsafe(send, call)

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


def _landing(seen: _Seen) -> Landing:
    landing = landing_of(seen.call, seen.reply, seen.sent_s, seen.ended_s - seen.call.due_s)
    return landing if seen.shadow is None else replace(landing, shadow=seen.shadow)
