"""Asking many replicas at once: each has the same time to answer, and none that hangs silences another.

It knows no Ray: what is asked comes in as calls under way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

ANSWER_WITHIN_S = 1.5
"""How long replicas are waited for. One that is well takes milliseconds; a scrape must be over well before Prometheus
gives it up (10 s), and whoever looks each second should not wait for two."""

log = logging.getLogger("punctual.asking")


class Call(Protocol):
    """A call of one replica that is under way: what Ray Serve has for each of a broadcast."""

    async def get_async(self) -> object:
        """What it answers, or raises."""

    def cancel(self) -> None:
        """Withdraws it, so that calls of a replica that hangs do not pile up there."""


async def each_within(calls: Sequence[Call], within_s: float) -> list[object | None]:
    """What each call answered, None for one that raised or had not answered after so many seconds and was cancelled."""
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
