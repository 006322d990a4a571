"""Queues, limits and profiles drawn by hypothesis, for the laws of forming batches."""

from __future__ import annotations

import math

from deployments.replica.batch_forming import (
    BatchLimits,
    Waiting,
)
from hypothesis import strategies as st

from gateway.model.profile import LatencyProfile

NOW = 100.0


@st.composite
def profiles(draw: st.DrawFn, least_s: float = 0.001) -> LatencyProfile:
    """Draw any grid of positive medians; a longer input or a larger batch may even be faster."""
    durations = st.floats(least_s, 0.5)
    medians = draw(st.tuples(*[st.tuples(durations, durations, durations)] * 3))
    return LatencyProfile((1, 2, 8), (1, 16, 64), medians, sigma=0.2)


@st.composite
def queues(draw: st.DrawFn) -> list[Waiting]:
    """Draw up to 30 queued requests; some are late, have equal deadlines, or must run alone."""
    budgets = st.one_of(st.floats(-3.0, 3.0), st.sampled_from([-1.0, 0.0, 0.5, 0.5, math.inf]))
    rows = st.tuples(st.integers(1, 80), budgets, st.booleans(), st.floats(0.0, 3.0), st.integers(0, 9))
    return [
        Waiting(sequence, tokens, NOW + budget, strict, NOW - age, alone=one_in_ten == 0)
        for sequence, (tokens, budget, strict, age, one_in_ten) in enumerate(draw(st.lists(rows, max_size=30)))
    ]


limits_given = st.builds(BatchLimits, st.integers(1, 12), st.integers(1, 400), st.floats(0.0, 0.6))
