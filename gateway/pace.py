"""The pace of an engine: how many times as long as its latency profile says it takes at this moment.

A profile is measured on a quiet machine; who shares the processor with whom is seen only live.
"""

from __future__ import annotations

LEAST, MOST = 0.25, 8.0


class Pace:
    """A running average of what was seen against what the profile said, within bounds."""

    def __init__(self, weight: float) -> None:
        """`weight` is that of each new observation, from 0 to 1."""
        self.value = 1.0
        self._weight = weight

    def learn(self, took_s: float, profiled_s: float) -> None:
        """Takes what a run took that takes `profiled_s` by the profile alone."""
        if profiled_s > 0:
            seen = min(max(took_s / profiled_s, LEAST), MOST)
            self.value += self._weight * (seen - self.value)
