"""The boundary to the engines: whatever one raises becomes a failure that is told, and the replica lives on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gateway.work import Failure, FailureKind

Made = TypeVar("Made")


def guarded(run: Callable[[], Made]) -> Made | Failure:
    """What the run gives, or an ENGINE failure that names the kind of error: its words may hold text of a request."""
    try:
        return run()
    except Exception as error:
        return Failure(FailureKind.ENGINE, type(error).__name__)
