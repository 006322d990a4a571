"""What transport tests wait for and with: a handler behind a gate, a replica at rest, a condition that comes true."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.model.messages import Failure, FailureKind, LoadReport, Work

ECHO = Failure(FailureKind.TOO_LONG, "answer " * 200, 9, 8)
"""What the gated handler answers."""


@dataclass
class Gate:
    """A handler that answers when the gate is open."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    begun: int = 0

    async def handle(self, work: Work) -> Failure:
        """Waits for the gate."""
        self.begun += 1
        await self.gate.wait()
        return ECHO


def idle() -> LoadReport:
    """A replica with nothing to do."""
    return LoadReport(0.0, 0)


async def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    """Waits for a condition to hold. Raises TimeoutError if it does not in time."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  the condition is another's state, without an event to wait for
            await asyncio.sleep(0.002)
