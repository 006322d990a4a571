"""The plan of a summary: how many beams and new tokens the remaining budget has room for.

A pure function of measured times. The forecast prices a checkpoint by it, and the replica plans anew by it when the
writing begins, with what is left by then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.model.manifest import Seq2SeqManifest
from gateway.model.profile import LatencyProfile

BEAMS = (1, 2, 4, 8)
"""The widths that are profiled and planned with."""

HEADROOM = 1.5
"""Beams are widened only where this many times the expected tokens would fit, or the most that may be written: a
summary cut short is worse than one found by a narrower search."""


@dataclass(frozen=True, slots=True)
class DecodingTimes:
    """What one text costs on one checkpoint, in seconds: reading it, and each further token by rows (beams)."""

    encode_s: float
    step_s: Callable[[int], float]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for at most: `beams` wide, `max_new_tokens` long, and about `expected_tokens` if let."""

    beams: int
    max_new_tokens: int
    expected_tokens: float


@dataclass(frozen=True, slots=True)
class DecodingPlan:
    """The width and length that a budget has room for, and what it should take by the median, in tokens and seconds."""

    beams: int
    max_new_tokens: int
    expected_tokens: float
    expected_s: float


@dataclass(frozen=True, slots=True)
class WritingTimes:
    """The two latency profiles of an encoder-decoder: reading with the first step, and each later step by rows."""

    encoder: LatencyProfile
    steps: LatencyProfile

    @classmethod
    def of(cls, manifest: Seq2SeqManifest) -> WritingTimes:
        """As they stand in the manifest. Raises ValueError for a grid with holes."""
        return cls(LatencyProfile.from_document(manifest.profile), LatencyProfile.from_document(manifest.step_profile))

    def for_text(self, tokens: int, slowdown: float = 1.0) -> DecodingTimes:
        """For a text of so many tokens, where everything takes `pace` times as long as it did when it was profiled."""
        return DecodingTimes(
            slowdown * self.encoder.median_s(1, tokens), lambda rows: slowdown * self.steps.median_s(rows, tokens)
        )


def plan(times: DecodingTimes, wanted: Wanted, room_s: float) -> DecodingPlan:
    """The widest search that leaves room for the expected tokens and half as many more, then the most tokens.

    A wider search is taken only where the budget does not make it shorter than what is expected, so more room never
    gives fewer beams. There is always at least one beam and one token.
    """
    left_s = room_s - times.encode_s
    expected = min(max(wanted.expected_tokens, 1.0), float(wanted.max_new_tokens))
    ample = min(HEADROOM * expected, float(wanted.max_new_tokens))
    beams = max((b for b in widths(wanted.beams) if ample * times.step_s(b) <= left_s), default=1)
    step_s = times.step_s(beams)
    fitting = int(left_s / step_s) if left_s > step_s else 1
    tokens = min(wanted.max_new_tokens, fitting)
    expected = min(expected, tokens)
    return DecodingPlan(beams, tokens, expected, times.encode_s + expected * step_s)


def leanest(times: DecodingTimes, wanted: Wanted) -> DecodingPlan:
    """The plan that takes least and still writes what is expected: one beam."""
    expected = min(max(wanted.expected_tokens, 1.0), float(wanted.max_new_tokens))
    return DecodingPlan(1, wanted.max_new_tokens, expected, times.encode_s + expected * times.step_s(1))


def widths(most: int) -> tuple[int, ...]:
    """The widths to choose from, none over `most`, `most` itself among them."""
    return tuple(sorted({*(b for b in BEAMS if b < most), most}))
