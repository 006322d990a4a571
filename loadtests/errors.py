"""Why a measurement could not be made; every message is meant for the person at the terminal.

LoadTestError
├── NoRace             the race cannot be held as asked: the catalog has no such checkpoint
├── NoSentences        the held-out sentences are missing
├── WrkMissing         there is no `wrk` on this machine
├── WrkFailed          `wrk` ran and gave no result
├── EngineFailed       the bare engine could not be measured
├── ServerFailed       a server ended, or did not become ready
├── OtherAnswers       a server answers otherwise than the variant run alone: a race would compare nothing
├── PrometheusMissing  there is no `prometheus` on this machine
├── PrometheusFailed   it ended, did not become ready, did not see the gateway, or refused a query
└── NothingShipped     dashboards or the config that come with the repository are missing or not as they should be
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


class PrometheusMissing(LoadTestError):
    """There is no `prometheus` on this machine; the message says how to get it."""


class PrometheusFailed(LoadTestError):
    """A Prometheus did not do its part; the message has what it said."""


class NothingShipped(LoadTestError):
    """What operators are shipped is not there, or not as it should be; the message says where and what."""
