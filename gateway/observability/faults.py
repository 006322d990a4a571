"""Internal faults that fail no request: each is counted, and the first of each kind is logged.

After a fault in pricing, forecasting or learning the plain decision is used; after a fault of an observer its line,
count or span is missing. This module knows neither what failed nor what was done instead.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable
from typing import get_args

from gateway.model.faults import Part
from gateway.observability.metrics import Collector, Metric, counter

log = logging.getLogger("punctual.faults")


class Faults(Collector):
    """Counts the faults of one process by the part that failed, starting at zero."""

    def __init__(self) -> None:
        family = counter("internal_faults", "Faults that degraded a decision or lost an observation.", ("part",))
        self._family = family
        self._counts = {part: family.labels(part) for part in get_args(Part)}
        self._logged: set[tuple[Part, type[BaseException]]] = set()

    def note(self, part: Part, error: Exception) -> None:
        """Counts one fault. Logs the first of each part and type, by type and place: a message may quote a request."""
        self._counts[part].inc()
        kind = (part, type(error))
        if kind not in self._logged:
            self._logged.add(kind)
            places = " < ".join(reversed(raised_at(error)))
            log.error("fault in %s: %s at %s; more of these are only counted", part, type(error).__name__, places)

    def collect(self) -> Iterable[Metric]:
        """The counter, for `exposition`."""
        return self._family.collect()


def raised_at(error: BaseException) -> list[str]:
    """The calls that led to an error, outermost first, each by file, line and function."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
