"""Why a measurement could not be made; every message is meant for the person at the terminal.

LoadTestError
├── NoRace         the race cannot be held as asked: the catalog has no such checkpoint
├── NoSentences    the held-out sentences are missing
├── WrkMissing     there is no `wrk` on this machine
├── WrkFailed      `wrk` ran and gave no result
├── EngineFailed   the bare engine could not be measured
├── ServerFailed   a server ended, or did not become ready
└── OtherAnswers   a server answers otherwise than the variant run alone: a race would compare nothing
"""

from __future__ import annotations


class LoadTestError(Exception):
    """The base of them all."""


class NoRace(LoadTestError):
    """The race cannot be held as asked; the message says why."""


class NoSentences(LoadTestError):
    """The held-out sentences are not there; the message says where they were looked for."""


class WrkMissing(LoadTestError):
    """There is no `wrk` on this machine; the message says how to get it."""


class WrkFailed(LoadTestError):
    """`wrk` ran and gave no result; the message has what it said."""


class EngineFailed(LoadTestError):
    """A process that runs the bare engine ended before it gave its latencies."""


class ServerFailed(LoadTestError):
    """A server ended or did not become ready; the message has the end of its log."""


class OtherAnswers(LoadTestError):
    """A server's answer to a sentence is not that of the variant run alone."""
