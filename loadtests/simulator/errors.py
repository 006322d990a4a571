"""Why a scenario could not be simulated; every message is meant for the person at the terminal.

LoadTestError
├── UnknownPolicy   there is no policy of that name for the scenario
├── NothingCounted  no request arrives in the counted part of a run
└── WorkerLost      a process that simulated ended before its run did

They cross processes, so they are rebuilt from their arguments alone.
"""

from __future__ import annotations

from loadtests.errors import LoadTestError


class UnknownPolicy(LoadTestError):
    """Asked to play a policy that there is not for this scenario. Its arguments: the name, and those that there are."""

    def __str__(self) -> str:
        """A sentence with the names to choose from."""
        policy, *known = self.args
        return f"policy {policy}: there is none of that name for this scenario; there are {', '.join(known)}"


class NothingCounted(LoadTestError):
    """No request arrives in the counted part of a run; the message says which run."""


class WorkerLost(LoadTestError):
    """A process that simulated ended before its run did; the message says what may be the reason."""
