"""Why a scenario cannot be played; every message is meant for the person at the terminal.

LoadTestError
└── ScenarioError   a scenario, or a file that it names, is not as it must be
"""

from __future__ import annotations

from loadtests.errors import LoadTestError


class ScenarioError(LoadTestError):
    """A scenario that cannot be played. Its arguments are the faults, one line each, as `FILE: FIELD: what`."""

    def __str__(self) -> str:
        """All faults, one a line."""
        return "\n".join(str(fault) for fault in self.args)
