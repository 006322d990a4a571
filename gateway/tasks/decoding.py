"""The plan of a summary: how many beams and new tokens the remaining budget allows.

A pure function of measured times. The forecast uses it to price a checkpoint, and the replica plans again with it when
writing begins, with the budget left by then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.model.messages import Generation
from gateway.model.profile import LatencyProfile, ProfileDocument

BEAMS = (1, 2, 4, 8)
"""Numbers of beams that are profiled and planned with."""

MOST_TOGETHER = 8
"""Most texts that step together. A step of 8 took 2.1 to 3.1 times as long as one of 1 (SmolLM2, int8 weights).
So many rows are profiled, and each holds its past in memory."""

FIRST_STEPS = 3
"""Steps after which the first word of a search is told: it is certain once the next begins. Set by hand."""

HEADROOM = 1.5
"""Beams are added only if this multiple of the expected tokens, or the most that may be written, would still fit.

A summary cut short is worse than one found by a narrower search. Set by hand.
"""


@dataclass(frozen=True, slots=True)
class DecodingTimes:
    """What one text takes on one checkpoint, in seconds: to read it, and to write a token by number of beams."""

    encode_s: float
    step_s: Callable[[int], float]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for: at most `beams` and `max_new_tokens`, and about `expected_tokens` if not limited."""

    beams: int
    max_new_tokens: int
    expected_tokens: float


@dataclass(frozen=True, slots=True)
class DecodingPlan:
    """The beams and tokens that a budget allows, with the expected length in tokens and the median time in seconds."""

    beams: int
    max_new_tokens: int
    expected_tokens: float
    expected_s: float


class Writes(Protocol):
    """The manifest of a checkpoint that writes: what reading with the first step takes, and each later step."""

    @property
    def profile(self) -> ProfileDocument:
        """Reading a text, with the first step."""

    @property
    def step_profile(self) -> ProfileDocument:
        """Each later step, by rows and by tokens before it."""


@dataclass(frozen=True, slots=True)
class WritingTimes:
    """The latency profiles of a checkpoint that writes: reading with the first step, and each later step by rows.

    Rows are the beams of a search. `company` has steps of several texts with one row each, where they may be shared and
    each has a source that must be read at every step.
    """

    encoder: LatencyProfile
    steps: LatencyProfile
    company: LatencyProfile | None = None

    @classmethod
    def of(cls, manifest: Writes, company: ProfileDocument | None = None) -> WritingTimes:
        """Reads the profiles of the manifest, and of shared steps if any. Raises ValueError for a grid with holes."""
        return cls(
            LatencyProfile.from_document(manifest.profile),
            LatencyProfile.from_document(manifest.step_profile),
            None if company is None else LatencyProfile.from_document(company),
        )

    def shared_step_s(self, texts: int, rows: int, tokens: int) -> float:
        """Median seconds of a step of several texts of so many tokens each, of so many rows together.

        Rows of one text read its source together; each further text costs reading one more.
        """
        alone_s = self.steps.median_s(rows, tokens)
        if self.company is None or texts == 1:
            return alone_s
        return alone_s + max(self.company.median_s(texts, tokens) - self.steps.median_s(texts, tokens), 0.0)

    def for_text(self, tokens: int, slowdown: float = 1.0) -> DecodingTimes:
        """Times for a text of `tokens`, multiplied by `slowdown`."""
        return DecodingTimes(
            slowdown * self.encoder.median_s(1, tokens), lambda rows: slowdown * self.steps.median_s(rows, tokens)
        )


def plan(times: DecodingTimes, wanted: Wanted, available_s: float) -> DecodingPlan:
    """The most beams that leave room for `HEADROOM` times the expected tokens, then the most tokens.

    A wider search is planned only if the budget does not cut it below that, so more room never gives fewer beams. There
    is always at least one beam and one token.
    """
    left_s = available_s - times.encode_s
    expected = min(max(wanted.expected_tokens, 1.0), float(wanted.max_new_tokens))
    ample = min(HEADROOM * expected, float(wanted.max_new_tokens))
    beams = max((b for b in widths(wanted.beams) if ample * times.step_s(b) <= left_s), default=1)
    step_s = times.step_s(beams)
    fitting = int(left_s / step_s) if left_s > step_s else 1
    tokens = min(wanted.max_new_tokens, fitting)
    expected = min(expected, tokens)
    return DecodingPlan(beams, tokens, expected, times.encode_s + expected * step_s)


def leanest(times: DecodingTimes, wanted: Wanted) -> DecodingPlan:
    """The cheapest plan that still writes the expected tokens: one beam."""
    expected = min(max(wanted.expected_tokens, 1.0), float(wanted.max_new_tokens))
    return DecodingPlan(1, wanted.max_new_tokens, expected, times.encode_s + expected * times.step_s(1))


def widths(most: int) -> tuple[int, ...]:
    """The numbers of beams to choose from, up to and including `most`."""
    return tuple(sorted({*(b for b in BEAMS if b < most), most}))


def was_short(generation: Generation) -> bool:
    """True if a text was too short to write about: nothing ran for it, so that its part of the tokens took no time."""
    return generation.finish_reason == "short"
