"""What tests wait for and with: a handler behind a gate, an idle replica, a condition that comes true.

This is the only file of the tests that sleeps or compares the machine's clock with a bound.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from virtual_time import VirtualLoop

from gateway.model.messages import Emit, Failure, FailureKind, LoadReport, Work

ECHO = Failure(FailureKind.TOO_LONG, "answer " * 200, 9, 8)
"""The gated handler's answer."""

_TURNS_FIRST = 200
_POLL_S = 0.002
_LOOK_S = 0.05


@dataclass
class Gate:
    """A handler that answers once the gate is open. `begun` counts batches."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    begun: int = 0

    async def handle(self, batch: Sequence[Work], emit: Emit) -> Sequence[Failure]:
        """Wait for the gate, then answer."""
        self.begun += 1
        await self.gate.wait()
        return [ECHO] * len(batch)


def idle() -> LoadReport:
    """Return the load of a replica without work."""
    return LoadReport(0.0, 0)


async def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """Wait until a condition holds. Raises TimeoutError if it does not within `within_s` real seconds.

    The loop first gets some turns; then the condition is tried every 2 ms of the loop's time, or every turn where it
    stands.
    """
    give_up_s = time.monotonic() + within_s
    loop, turns = asyncio.get_running_loop(), 0
    stands = isinstance(loop, VirtualLoop) and not loop.flows
    while not condition():
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"not within {within_s:.0f} s")
        turns += 1
        await asyncio.sleep(0 if stands or turns < _TURNS_FIRST else _POLL_S)


def take_up(seconds: float) -> None:
    """Block the calling thread, as a slow engine would. No test depends on how long it really takes."""
    time.sleep(seconds)


def wait_until(condition: Callable[[], bool], within_s: float = 60.0, describe: Callable[[], str] = lambda: "") -> None:
    """Block until a condition of another process or thread holds, where there is no event to wait for.

    Fails after `within_s` real seconds, with what `describe` says then.
    """
    give_up_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up_s:
            raise AssertionError(f"not within {within_s:.0f} s {describe()}")
        time.sleep(_LOOK_S)
