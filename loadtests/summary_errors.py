"""Why summaries could not be measured; every message is meant for the person at the terminal.

LoadTestError
├── NoTexts         the held-out texts are missing
├── NoSummarizer    the catalog has none, or not the one asked for
└── ScorerMissing   `rouge-score` is not installed
"""

from __future__ import annotations

from loadtests.errors import LoadTestError


class NoTexts(LoadTestError):
    """The held-out texts are not there; the message says where they were looked for."""


class NoSummarizer(LoadTestError):
    """The catalog has no summarizer that could be measured; the message says which it was asked for."""


class ScorerMissing(LoadTestError):
    """The scorer of summaries is not installed; the message says how to get it."""
