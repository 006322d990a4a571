"""Asks Ray Serve where replicas listen, what each process counts, and how deployments are, and ingresses to drain.

Control plane only: a broadcast takes milliseconds, and no request waits for one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.serve.asking import ANSWER_WITHIN_S, each_within
from deployments.serve.scraping import Status
from deployments.transport import Endpoint
from gateway.model.manifest import VariantManifest

APPLICATION = "punctual"
INGRESS = "gateway"
"""Names of the application, and of the ingresses' deployment."""

log = logging.getLogger("punctual.directory")


class ServeDirectory:
    """Finds the replicas of each checkpoint's deployment. `handles` may gain checkpoints at any time."""

    def __init__(self, handles: Mapping[str, DeploymentHandle[Any]]) -> None:
        self._handles = handles

    async def endpoints(self, checkpoint: str) -> Sequence[Endpoint]:
        """Finds the replicas that answer now; empty if none does in time, or the checkpoint is still to come."""
        handle = self._handles.get(checkpoint)
        answers = [] if handle is None else await ask_all(handle, "endpoint")
        return [answer for answer in answers if isinstance(answer, Endpoint)]


async def ask_all(handle: DeploymentHandle[Any], method: str) -> list[object | None]:
    """Calls a method of each live replica; gives the answers within `ANSWER_WITHIN_S`, None for one without.

    Empty if no replica is up or Ray is in trouble. Ray's `results_async` gives nothing at all if one replica hangs, so
    this uses an undocumented method of Ray to take the calls one by one.
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


def late_application(checkpoint: str) -> str:
    """Names the application of a checkpoint that comes later than the gateway."""
    return f"{APPLICATION}-{checkpoint}"


def late_handle(checkpoint: str) -> DeploymentHandle[Any]:
    """A handle of a late checkpoint's deployment, which need not exist yet."""
    return serve.get_deployment_handle(checkpoint, late_application(checkpoint), _check_exists=False)


async def ask_variant(handle: DeploymentHandle[Any]) -> tuple[VariantManifest, Path] | None:
    """Asks a checkpoint's replicas for the manifest and the folder of their variant; None if none answers."""
    answers = await ask_all(handle, "variant")
    return next((answer for answer in answers if isinstance(answer, tuple)), None)


def read_statuses() -> list[Status]:
    """Reads the states of the gateway's deployments; none if Ray is in trouble. Blocking."""
    try:
        applications = serve.status().applications
    except (RayError, RayServeException) as error:
        log.info("no status: %s", type(error).__name__)
        return []
    return [
        Status(
            name,
            one.status.lower(),
            {state.lower(): count for state, count in one.replica_states.items()},
            one.message,
        )
        for application, overview in applications.items()
        if application == APPLICATION or application.startswith(late_application(""))
        for name, one in overview.deployments.items()
    ]


def drain_ingresses(within_s: float) -> None:
    """Has every ingress that runs finish its requests, if the application runs at all. Blocking."""
    running = {one.deployment: one.replicas.get("running", 0) for one in read_statuses()}
    if not running.get(INGRESS):
        return

    async def drain() -> None:  # by our switches, a handle needs a loop to run in
        await serve.get_deployment_handle(INGRESS, APPLICATION).broadcast("drain").results_async(timeout_s=within_s)

    try:
        asyncio.run(drain())
    except (TimeoutError, RayError, RayServeException) as error:
        log.warning("not every ingress was drained: %s", type(error).__name__)
