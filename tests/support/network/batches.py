"""Batches over the transport, as tests send and answer them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from deployments.replica.gathering import each
from deployments.transport import Handler, TransportClient
from gateway.model.messages import Answer, Emit, Failure, Work


async def results_of(client: TransportClient, *batch: Work) -> list[Answer | Failure]:
    """Send a batch and wait for its results. Cancelling the wait cancels the batch."""
    future: asyncio.Future[list[Answer | Failure]] = asyncio.get_running_loop().create_future()
    cancel = client.submit(batch, lambda results: future.set_result(list(results)))
    try:
        return await future
    except asyncio.CancelledError:
        cancel()
        raise


async def result_of(client: TransportClient, work: Work) -> Answer | Failure:
    """Send one request as a batch of its own and wait for its result."""
    (result,) = await results_of(client, work)
    return result


def one_by_one(handle: Callable[[Work], Coroutine[Any, Any, Answer | Failure]]) -> Handler:
    """Return a handler that answers the requests of a batch at once, each by `handle`."""

    async def handler(batch: Sequence[Work], emit: Emit) -> Sequence[Answer | Failure]:
        return await each(handle(work) for work in batch)

    return handler
