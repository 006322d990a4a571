"""A checkpoint whose runs take what they are told to: what the rule of the next run is tried on."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.forecasting.forecaster import ServedCheckpoint


@dataclass
class PlannedCheckpoint(ServedCheckpoint):
    """Runs take so long to begin with and so much for each input; a request reaches so many times that, and more."""

    name: str
    utility: float
    fixed_s: float
    each_s: float
    max_batch: int = 8
    threads: int = 1
    slots: int = 1
    stretch: float = 1.0
    overhead_s: float = 0.0

    def run_s(self, inputs: int, characters: int) -> float:
        """Whatever the characters."""
        return self.fixed_s + self.each_s * inputs

    def reach_s(self, run_s: float, now_s: float) -> float:
        """At any time."""
        return self.stretch * run_s + self.overhead_s
