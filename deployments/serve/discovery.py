"""What Ray Serve knows for us: where the replicas listen, what each process counts, and how the deployments stand.

Control plane only: a broadcast costs milliseconds, and no request waits for one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.asking import ANSWER_WITHIN_S, each_within
from deployments.serve.scraping import Status
from deployments.transport import Endpoint

log = logging.getLogger("punctual.directory")


class ServeDirectory:
    """Finds the replicas of each checkpoint's deployment."""

    def __init__(self, handles: Mapping[str, DeploymentHandle[Any]]) -> None:
        self._handles = handles

    async def endpoints(self, checkpoint: str) -> Sequence[Endpoint]:
        """The replicas that answer now; empty where none does in time."""
        answers = await ask_all(self._handles[checkpoint], "endpoint")
        return [answer for answer in answers if isinstance(answer, Endpoint)]


async def ask_all(handle: DeploymentHandle[Any], method: str) -> list[object | None]:
    """What each live replica answers to the method within `ANSWER_WITHIN_S`, None for one that does not.

    Empty where no replica is up and where Ray itself is in trouble. `results_async` would give nothing at all where one
    replica hangs; so its calls are taken one by one, by a way that Ray does not document.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + ANSWER_WITHIN_S
    try:
        async with asyncio.timeout_at(until_s):
            calls = await handle.broadcast(method)._fetch_replica_results_async()
    except (TimeoutError, RayError, RayServeException) as error:
        log.info("no answer of %s to %s: %s", handle.deployment_name, method, type(error).__name__)
        return []
    return await each_within(calls, until_s - loop.time())


def read_statuses(application: str) -> list[Status]:
    """How the deployments of an application stand; none where Ray is in trouble. Blocking."""
    try:
        overview = serve.status().applications.get(application)
    except (RayError, RayServeException) as error:
        log.info("no status of %s: %s", application, type(error).__name__)
        return []
    return [
        Status(
            name,
            one.status.lower(),
            {state.lower(): count for state, count in one.replica_states.items()},
            one.message,
        )
        for name, one in (overview.deployments.items() if overview else ())
    ]
