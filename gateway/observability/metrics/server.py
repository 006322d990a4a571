"""What is answered with an error and is no request of a task: by the HTTP server itself, or for a path or method.

Requests of tasks have their records; these are only counted.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gateway.model import errors
from gateway.model.errors import Problem
from gateway.observability.metrics.exposition import counter

_KINDS: tuple[type[Problem], ...] = (
    errors.InvalidRequest,
    errors.NotFound,
    errors.MethodNotAllowed,
    errors.UnknownHost,
    errors.InputTooLong,
    errors.MethodNotImplemented,
    errors.VersionNotSupported,
    errors.HeadTooLarge,
    errors.RequestTimeout,
    errors.TooManyConnections,
    errors.Stopping,
    errors.InternalError,
)
"""The usual ones, which are counted from zero."""


class ServerErrors(Collector):
    """Counts the errors of one process that no record tells of, by the problem's code."""

    def __init__(self) -> None:
        self._family = counter("server_errors", "Errors answered to what is no request of a task, by code.", ("code",))
        for kind in _KINDS:
            self._family.labels(kind.code)

    def count(self, problem: Problem) -> None:
        """Counts one."""
        self._family.labels(problem.code).inc()

    def collect(self) -> Iterable[Metric]:
        """The counter, for `exposition`."""
        return self._family.collect()
