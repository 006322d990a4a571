"""Why a gateway could not be watched as operators watch it; every message is meant for the person at the terminal.

LoadTestError
├── PrometheusMissing  there is no `prometheus` on this machine
├── PrometheusFailed   it ended, did not become ready, did not see the gateway, or refused a question
└── NothingShipped     dashboards or the config that come with the repository are missing or not as they should be
"""

from __future__ import annotations

from loadtests.errors import LoadTestError


class PrometheusMissing(LoadTestError):
    """There is no `prometheus` on this machine; the message says how to get it."""


class PrometheusFailed(LoadTestError):
    """A Prometheus did not do its part; the message has what it said."""


class NothingShipped(LoadTestError):
    """What operators are shipped is not there, or not as it should be; the message says where and what."""
