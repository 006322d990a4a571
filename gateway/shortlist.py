"""How far down the candidates must be looked at: what cannot matter any more is not forecast."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gateway.policy import Candidate, Terms


class Search:
    """Says how far down candidates that come best first must be looked at for `decide` to decide as it would on all.

    It begins with those looked at when the first of them fits. Worth must fall with quality, or stay.
    """

    def __init__(self, candidates: Sequence[Candidate], remaining_s: float, terms: Terms, price: float) -> None:
        self._remaining_s = remaining_s
        self._terms = terms
        self._price = price
        self._up = 0
        self._most_left = self._enough = -math.inf
        for one in candidates:
            self.look(one)

    def look(self, candidate: Candidate) -> None:
        """Takes the next one."""
        forecast = candidate.forecast
        if forecast is None or not self._terms.allow(candidate):
            return
        self._up += 1
        left = candidate.worth - self._price * forecast.cost_s
        if left > self._most_left:  # the ceiling is here: what fits above it is not given
            self._most_left, self._enough = left, -math.inf
        if self._enough == -math.inf and forecast.quantile_s <= self._remaining_s:
            self._enough = candidate.quality

    def over(self, quality: float, worth: float) -> bool:
        """Whether nothing of this quality and worth, or less, can matter: be chosen, or lower the ceiling."""
        return self._up > 1 and quality < self._enough and worth <= self._most_left
