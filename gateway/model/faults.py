"""Internal faults that must not fail a request: they are noted, and something simpler is done instead."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, TypeAlias, TypeVar

from gateway.model.errors import Problem

log = logging.getLogger("punctual.faults")

ResultT = TypeVar("ResultT")

Part: TypeAlias = Literal["pricing", "forecast", "scheduling", "learning", "observer"]
"""The part of the gateway that failed: a closed list, since it is a label."""

Note: TypeAlias = Callable[[Part, Exception], None]
"""Takes one fault; it must not raise."""


def log_fault(part: Part, error: Exception) -> None:
    """Logs a fault by its type alone: a message may quote a request."""
    log.error("fault in %s: %s", part, type(error).__name__)


def attempt(part: Part, note: Note, what: Callable[[], ResultT], otherwise: Callable[[], ResultT]) -> ResultT:
    """Calls `what`, and `otherwise` if it fails. A `Problem` is meant for the client, so it is raised."""
    try:
        return what()
    except Problem:
        raise
    except Exception as error:  # a request must not fail for what it can do without
        note(part, error)
        return otherwise()
