"""Errors that prevent a measurement. Every message is written for the user at the terminal.

LoadTestError
├── NoRace             the comparison cannot be made as requested
├── NoSentences        the held-out sentences are missing
├── WrkMissing         there is no `wrk` on this machine
├── WrkFailed          `wrk` ran and gave no result
├── EngineFailed       the bare engine could not be measured
├── ServerFailed       a server ended, or did not become ready
├── OtherAnswers       a server's answers differ from the variant's own, so a comparison is meaningless
├── PrometheusMissing  there is no `prometheus` on this machine
├── PrometheusFailed   Prometheus ended, did not become ready, did not find the gateway, or refused a query
└── NothingShipped     a shipped dashboard or Prometheus config is missing or malformed
"""

from __future__ import annotations


class LoadTestError(Exception):
    """The base of this module's errors."""


class NoRace(LoadTestError):
    """The comparison cannot be made as requested; the message says why."""


class NoSentences(LoadTestError):
    """The held-out sentences are missing; the message says where they were expected."""


class WrkMissing(LoadTestError):
    """There is no `wrk` on this machine; the message says how to get it."""


class WrkFailed(LoadTestError):
    """`wrk` ran and gave no result; the message holds its output."""


class EngineFailed(LoadTestError):
    """A process that runs the bare engine ended before it reported its latencies."""


class ServerFailed(LoadTestError):
    """A server ended or did not become ready; the message holds the end of its log."""


class OtherAnswers(LoadTestError):
    """A server's answer to a sentence differs from that of the variant run alone."""


class PrometheusMissing(LoadTestError):
    """There is no `prometheus` on this machine; the message says how to get it."""


class PrometheusFailed(LoadTestError):
    """Prometheus failed or refused a query; the message says how."""


class NothingShipped(LoadTestError):
    """A shipped dashboard or config is missing or malformed; the message names the file and the fault."""
