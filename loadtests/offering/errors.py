"""Why a scenario could not be offered to a live gateway; every message is meant for the person at the terminal.

LoadTestError
├── NoGateway        nothing answers at the URL, or what answers is no gateway
├── NoSuchPin        the gateway does not serve the checkpoint that was to be pinned
├── NothingOffered   a run would have no request, or a capacity cannot be had from what was offered
├── GeneratorFailed  the process that sends the requests ended before it gave its account
└── NoNeighbour      the command that was to run beside cannot be started
"""

from __future__ import annotations

from loadtests.errors import LoadTestError


class NoGateway(LoadTestError):
    """Nothing answers at the URL as a gateway does; the message says what came instead."""


class NoSuchPin(LoadTestError):
    """The gateway does not serve what was to be pinned, or not for the scenario; the message says what it serves."""


class NothingOffered(LoadTestError):
    """A run would have no request, or there is no capacity that a load could be relative to; the message says why."""


class GeneratorFailed(LoadTestError):
    """The process that sends the requests ended before it gave its account."""


class NoNeighbour(LoadTestError):
    """The command that was to run beside cannot be started; the message says which."""
