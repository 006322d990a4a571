"""Faults of our own that must not fail a request: what was tried is noted, and something plainer is done instead."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, TypeAlias, TypeVar

from gateway.model.errors import Problem

log = logging.getLogger("punctual.faults")

ResultT = TypeVar("ResultT")

Part: TypeAlias = Literal["pricing", "forecast", "scheduling", "learning", "observer"]
"""What of the gateway failed: a closed list, since it is a label."""

Note: TypeAlias = Callable[[Part, Exception], None]
"""Takes one fault; it must not raise."""


def log_fault(part: Part, error: Exception) -> None:
    """Logs a fault by its type alone: a message may quote a request."""
    log.error("fault in %s: %s", part, type(error).__name__)


def attempt(part: Part, note: Note, what: Callable[[], ResultT], otherwise: Callable[[], ResultT]) -> ResultT:
    """What `what` gives, or where it fails what `otherwise` gives. A `Problem` is the client's, and goes on its way."""
    try:
        return what()
    except Problem:
        raise
    except Exception as error:  # the boundary to what is learnt: a request must not fail for what can be done without
        note(part, error)
        return otherwise()
