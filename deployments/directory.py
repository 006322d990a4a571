"""What Ray Serve knows for us: where the replicas listen and what each process counts, asked by broadcast.

Control plane only: a broadcast costs milliseconds, and no request waits for one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.link import Endpoint
from gateway.metrics import one_scrape

ANSWER_WITHIN_S = 2.0
"""How long a broadcast may take before those who have not answered are passed over."""

log = logging.getLogger("punctual.directory")


class ServeDirectory:
    """Finds the replicas of each checkpoint's deployment."""

    def __init__(self, handles: Mapping[str, DeploymentHandle[Any]]) -> None:
        self._handles = handles

    async def endpoints(self, checkpoint: str) -> Sequence[Endpoint]:
        """The replicas that answer now; empty where none does in time."""
        return [
            answer for answer in await ask_all(self._handles[checkpoint], "endpoint") if isinstance(answer, Endpoint)
        ]


class ServeScrape:
    """Gathers `/metrics` of every process: this ingress, its siblings, and the replicas of every checkpoint."""

    def __init__(self, handles: Mapping[str, DeploymentHandle[Any]], siblings: DeploymentHandle[Any]) -> None:
        self._handles = (siblings, *handles.values())

    async def gather(self) -> bytes:
        """One exposition; a deployment of which no process answers in time appears as not up."""
        answers = await asyncio.gather(*(ask_all(handle, "metrics_text") for handle in self._handles))
        texts: dict[str, str] = dict(answer for group in answers for answer in group if isinstance(answer, tuple))
        silent = [handle.deployment_name for handle, group in zip(self._handles, answers, strict=True) if not group]
        return one_scrape(texts, silent)


async def ask_all(handle: DeploymentHandle[Any], method: str) -> list[object]:
    """What each live replica answers to the method, exceptions in their places.

    Empty where no replica is up, where Ray itself is in trouble, and after `ANSWER_WITHIN_S`.
    """
    try:
        response = handle.broadcast(method)
        answers: list[object] = await response.results_async(timeout_s=ANSWER_WITHIN_S, return_exceptions=True)
    except (TimeoutError, RayError, RayServeException) as error:
        log.info("no answer of %s to %s: %s", handle.deployment_name, method, type(error).__name__)
        return []
    return answers
