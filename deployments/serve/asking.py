"""Asks many replicas at once, with a time limit, so that a replica that hangs does not delay the others.

Takes calls that are under way, and imports no Ray.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

ANSWER_WITHIN_S = 1.5
"""Seconds that replicas may take to answer; a healthy one takes milliseconds.

A scrape must end well before Prometheus gives it up (10 s), and a console that asks each second should not wait two."""

log = logging.getLogger("punctual.asking")


class Call(Protocol):
    """A call to one replica under way. Ray Serve makes one for each replica of a broadcast."""

    async def get_async(self) -> object:
        """Returns the replica's answer, or raises its error."""

    def cancel(self) -> None:
        """Withdraws the call, so that calls do not pile up at a replica that hangs."""


async def each_within(calls: Sequence[Call], within_s: float) -> list[object | None]:
    """Awaits the answers for `within_s` seconds, in the order of the calls. None for a call that raised or is late.

    Late calls are cancelled.
    """
    tasks = [asyncio.ensure_future(call.get_async()) for call in calls]
    if not tasks:
        return []
    try:
        await asyncio.wait(tasks, timeout=max(within_s, 0.0))
        return [_answer(task) for task in tasks]
    finally:
        for call, task in zip(calls, tasks, strict=True):
            if not task.done():
                task.cancel()
                call.cancel()


def _answer(task: asyncio.Future[object]) -> object | None:
    if not task.done() or task.cancelled():
        return None
    error = task.exception()
    if error is not None:
        log.info("a replica gave no answer: %s", type(error).__name__)
        return None
    return task.result()
