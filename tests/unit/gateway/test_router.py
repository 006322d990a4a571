"""The router: which checkpoints it looks at, and what utility it gives them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from fakes import EVEN, GRAND, SWIFT, TERMS, entry
from worlds import world

from gateway.catalogs.catalog import CatalogEntry, Quality, load_catalog
from gateway.model.tier import Tier
from gateway.router import LEAST_STEP, utilities_of
from gateway.scheduling.policy import Reason


def ranked(name: str, value: float, rank: int) -> CatalogEntry:
    """Return an entry that is ordered by its rank, whatever its score."""
    quality = Quality(metric="by hand", value=value, data_set="by hand", reference="made up", rank=rank)
    return entry(name, Tier.QUALITY, value).model_copy(update={"quality": quality})


def test_what_is_not_needed_is_not_looked_at() -> None:
    """Where the best checkpoint fits, the router looks at one more; on demand it looks at all."""
    told = world()
    request = told.request(TERMS)
    deadline = told.service.router.deadline(request)
    brief = told.service.router.decide(request, deadline)
    assert [one.candidate.name for one in brief.assessed] == [GRAND, EVEN]
    whole = told.service.router.decide(request, deadline, every=True)
    assert [one.candidate.name for one in whole.assessed] == [GRAND, EVEN, SWIFT]


def test_as_much_is_decided_on_what_is_looked_at_as_on_all() -> None:
    """Looking at few checkpoints gives the choice, the reason or the refusal that looking at all would give."""
    chance = random.Random(5)
    for _ in range(400):
        told = world(up=False)
        for name in (SWIFT, EVEN, GRAND):
            if chance.random() < 0.8:
                told.up(name, backlog_s=chance.choice((0.0, 0.05)))
        budget_s, strict = chance.choice((0.001, 0.01, 0.03, 0.2, 1.0)), chance.random() < 0.5
        request = told.request(replace(TERMS, budget_s=budget_s, strict=strict))
        deadline = told.service.router.deadline(request)
        price = chance.choice((0.0, 50.0, 500.0, 5000.0))
        brief, whole = (told.service.router.decide(request, deadline, price, every=of) for of in (False, True))
        assert (brief.chosen, brief.reason, brief.refusal) == (whole.chosen, whole.reason, whole.refusal)
        assert brief.degraded == whole.degraded


def test_a_price_gives_less_and_says_why() -> None:
    """At a high price the router chooses a cheaper checkpoint and names congestion."""
    told = world()
    request = told.request(TERMS)
    deadline = told.service.router.deadline(request)
    cheap, dear = (told.service.router.decide(request, deadline, price) for price in (100.0, 130.0))
    assert cheap.chosen is not None and cheap.chosen.name == GRAND
    assert dear.chosen is not None and (dear.chosen.name, dear.reason) == (EVEN, Reason.CONGESTION)


def test_worth_is_the_score_where_scores_order() -> None:
    """The utility of a checkpoint is its score where all scores of the task are comparable."""
    entries = [entry("a", Tier.REALTIME, 80.0), entry("b", Tier.QUALITY, 80.1), entry("c", Tier.QUALITY, 80.1)]
    assert utilities_of(entries) == {"a": 80.0, "b": 80.1, "c": 80.1}


def test_worth_rises_with_rank() -> None:
    """The utility rises with the rank, even where the score falls."""
    entries = [ranked("third", 40.0, 3), ranked("first", 43.0, 1), ranked("second", 44.0, 2), ranked("also", 1.0, 2)]
    assert utilities_of(entries) == {
        "first": 43.0,
        "second": 44.0,
        "also": 43.0 + LEAST_STEP,
        "third": 44.0 + LEAST_STEP,
    }


@pytest.mark.parametrize("name", ["starter", "hub"])
def test_worth_never_runs_against_quality(name: str) -> None:
    """In the shipped catalogs a better checkpoint has a higher utility, in every task."""
    catalog = load_catalog(name)
    for task in catalog.tasks:
        entries = catalog.of_task(task)
        utilities = utilities_of(entries)
        for one in entries:
            for other in entries:
                if one.quality.standing > other.quality.standing:
                    assert utilities[one.name] > utilities[other.name]
