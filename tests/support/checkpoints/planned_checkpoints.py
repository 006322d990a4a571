"""A checkpoint whose batches take a known time, for the rule that forms the next batch."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.forecasting.forecaster import ServedCheckpoint


@dataclass
class PlannedCheckpoint(ServedCheckpoint):
    """A checkpoint with a fixed time and a time for each input; a forecast is `stretch` times that plus overhead."""

    name: str
    utility: float
    fixed_s: float
    each_s: float
    max_batch: int = 8
    joins: None = None
    threads: int = 1
    slots: int = 1
    stretch: float = 1.0
    overhead_s: float = 0.0
    tokenizer: int = 0

    def run_s(self, inputs: int, tokens: int) -> float:
        """Return the time of a batch, whatever its length."""
        return self.fixed_s + self.each_s * inputs

    def reach_s(self, run_s: float, now_s: float) -> float:
        """Return the forecast of a batch, whatever the time."""
        return self.stretch * run_s + self.overhead_s
