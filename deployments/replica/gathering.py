"""Awaits the inputs of one request, or the requests of one batch, together. Knows neither texts nor engines."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from gateway.model.messages import Failure, FailureKind

Piece = TypeVar("Piece")


async def all_or_failure(pieces: Iterable[Coroutine[Any, Any, Piece | Failure]]) -> list[Piece] | Failure:
    """Awaits all pieces, and gives their results in order, or the first failure after withdrawing the others.

    Of an input that is too long, the failure has its index. Cancelling it withdraws all pieces.
    """
    tasks = [asyncio.create_task(piece) for piece in pieces]
    try:
        for ending in asyncio.as_completed(tasks):
            result = await ending
            if isinstance(result, Failure):
                return _placed(result, tasks)
    finally:
        for task in tasks:
            task.cancel()
    return [result for task in tasks if not isinstance(result := task.result(), Failure)]


def _placed(failure: Failure, tasks: Sequence[asyncio.Task[Any]]) -> Failure:
    if failure.kind is not FailureKind.TOO_LONG:
        return failure
    answered = (task.done() and not task.cancelled() and task.exception() is None for task in tasks)
    places = (at for at, done in enumerate(answered) if done and tasks[at].result() is failure)
    return msgspec.structs.replace(failure, index=next(places))


async def each(requests: Iterable[Coroutine[Any, Any, Piece]]) -> list[Piece]:
    """Awaits the requests of a batch together, and gives their results in order. Cancelling it withdraws all."""
    waiting = list(requests)
    if len(waiting) == 1:
        return [await waiting[0]]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in waiting]
    return [task.result() for task in tasks]
