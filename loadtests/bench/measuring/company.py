"""An ordinary client's latency alone and beside company, such as a busy summarizer or a crowd of slow clients.

One turn of each round is the client's alone, so that its figures beside company are compared with those of the same
minute. Each benchmark adds what became of its company to the ordinary client's results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from loadtests.bench.measuring.report import Verdict
from loadtests.bench.measuring.rounds import Slot, Target, Turn, Turns
from loadtests.offered_load import Ending, LoadReport, LoadSettings, Quantiles

ALONE = "alone"


@dataclass(frozen=True)
class Ordinary:
    """The ordinary client's results in one turn."""

    load: LoadReport

    @property
    def latency(self) -> Quantiles:
        """The latency of the answers, in a turn whose round counts."""
        assert self.load.latency is not None, "a round that counts has answers in every turn"
        return self.load.latency

    @property
    def invalid(self) -> str:
        """The reason, if nothing was answered; else empty. Other faults invalidate the whole run, not one round."""
        return "" if self.load.latency else "nothing was answered"


S = TypeVar("S", bound=Ordinary)


def p50(sample: Ordinary) -> float:
    """The median latency of a turn whose round counts, in seconds."""
    return sample.latency.p50_s


def p95(sample: Ordinary) -> float:
    """The 95th percentile of the latency in a turn whose round counts, in seconds."""
    return sample.latency.p95_s


def where(slot: Slot) -> str:
    """A turn as faults name it."""
    return f"round {slot.round}, {slot.contestant}"


def load_faults(turn: Turn[S], requests: str = "requests") -> list[str]:
    """Faults of the ordinary load that invalidate a run: a late generator, and requests that failed."""
    load, found = turn.sample.load, []
    if not load.valid and load.lag is not None:
        found.append(f"{where(turn.slot)}: the generator sent late, p99 {load.lag.p99_s * 1000:.1f} ms")
    if not load.offered:
        found.append(f"{where(turn.slot)}: nothing was offered")
    lost = {ending: load.endings[ending] for ending in (Ending.REFUSED, Ending.FAILED, Ending.HUNG)}
    return found + [f"{where(turn.slot)}: {count} {requests} {ending}" for ending, count in lost.items() if count]


def delay_remarks(turns: Turns[S]) -> list[str]:
    """The generator's own delay in the worst turn, beside what it may be; nothing if nothing was sent."""
    lags = [turn.sample.load.lag.p99_s for turn in turns.timed if turn.sample.load.lag]
    bound_ms = LoadSettings.lag_bound_s * 1000
    worst_ms = max(lags, default=0.0) * 1000
    said = f"the generator's own delay, p99: {worst_ms:.1f} ms in the worst turn; it may be {bound_ms:g} ms"
    return [said] if lags else []


def compared(target: Target, faults: list[str]) -> Verdict:
    """Whether a target is met. A run with a fault misses it."""
    said = target.verdict()
    return Verdict(f"not valid: {said.sentence}", met=False) if faults else said


def not_valid(faults: list[str]) -> list[Verdict]:
    """A missed verdict for each fault that invalidates a run."""
    return [Verdict(f"NOT VALID: {fault}", met=False) for fault in faults]
