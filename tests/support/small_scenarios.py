"""Scenarios and variants of them, small enough to reckon in the head, for tests."""

from __future__ import annotations

import random
from dataclasses import dataclass

from gateway.model.tier import Tier
from loadtests.workload.scenario import CatalogSource, RequestClass, Scenario
from loadtests.workload.variants import Variant

REQUESTS = (RequestClass(budget_ms=(50, 100), words=(5, 60)),)


@dataclass(frozen=True)
class Even:
    """A run takes `fixed_s`, and `per_text_s` for each text, and `per_token_s` for each token of each."""

    fixed_s: float = 0.0
    per_text_s: float = 0.0
    per_token_s: float = 0.0
    sigma: float = 0.0

    def median_s(self, batch: int, tokens: int) -> float:
        """As said."""
        return self.fixed_s + batch * (self.per_text_s + tokens * self.per_token_s)

    def noise(self, batch: int, chance: random.Random) -> float:
        """None."""
        return 1.0


def variant(
    name: str, quality: float, times: Even, task: str = "classify", max_batch: int = 1, domain: str | None = None
) -> Variant:
    """A variant whose times are in the head."""
    return Variant(name, task, quality, Tier.BALANCED, times, max_batch, domain)


ONE = (variant("one", 80.0, Even(per_text_s=0.010)),)
"""A single classifier, 10 ms a text: two cores serve 200 requests a second."""


def scenario(**fields: object) -> Scenario:
    """Short texts to one classifier at a load of 1, unless told otherwise."""
    told: dict[str, object] = {
        "name": "by-hand",
        "catalog": CatalogSource(manifests="starter"),
        "requests": REQUESTS,
        **fields,
    }
    return Scenario.model_validate(told)
