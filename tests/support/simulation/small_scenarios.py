"""Scenarios and variants for tests, small enough to compute by hand."""

from __future__ import annotations

import random
from dataclasses import dataclass

from gateway.model.tier import Tier
from loadtests.workload.scenario import CatalogSource, RequestClass, Scenario
from loadtests.workload.variants import Variant

REQUESTS = (RequestClass(budget_ms=(50, 100), words=(5, 60)),)


@dataclass(frozen=True)
class Even:
    """A batch takes `fixed_s`, plus for each text `per_text_s` and `per_token_s` a token."""

    fixed_s: float = 0.0
    per_text_s: float = 0.0
    per_token_s: float = 0.0
    sigma: float = 0.0

    def median_s(self, batch: int, tokens: int) -> float:
        """Return the time of a batch."""
        return self.fixed_s + batch * (self.per_text_s + tokens * self.per_token_s)

    def noise(self, batch: int, chance: random.Random) -> float:
        """Return no noise."""
        return 1.0


def variant(
    name: str, quality: float, times: Even, task: str = "classify", max_batch: int = 1, domain: str | None = None
) -> Variant:
    """Return a variant with these times."""
    return Variant(name, task, quality, Tier.BALANCED, times, max_batch, domain)


ONE = (variant("one", 80.0, Even(per_text_s=0.010)),)
"""A single classifier, 10 ms a text: two cores serve 200 requests a second."""


def scenario(**fields: object) -> Scenario:
    """Return short texts to one classifier at a load of 1, unless given otherwise."""
    told: dict[str, object] = {
        "name": "by-hand",
        "catalog": CatalogSource(manifests="starter"),
        "requests": REQUESTS,
        **fields,
    }
    return Scenario.model_validate(told)
