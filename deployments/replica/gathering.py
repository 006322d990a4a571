"""Several pieces of one request seen through together: all of them, or the first failure.

It knows neither texts nor engines; what a piece is, is whoever's submits it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from gateway.model.messages import Failure

Piece = TypeVar("Piece")


async def all_or_failure(pieces: Iterable[Coroutine[Any, Any, Piece | Failure]]) -> list[Piece] | Failure:
    """Every piece in its order, or the first failure: the others are then withdrawn, since nobody gets them.

    Cancelling it withdraws all.
    """
    tasks = [asyncio.create_task(piece) for piece in pieces]
    try:
        for ending in asyncio.as_completed(tasks):
            result = await ending
            if isinstance(result, Failure):
                return result
    finally:
        for task in tasks:
            task.cancel()
    return [result for task in tasks if not isinstance(result := task.result(), Failure)]
