"""The router: which checkpoints it looks at, by which tokenizer each is forecast, and what utility it has."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest
from fakes import EVEN, GRAND, MEDIANS_S, SWIFT, TERMS, FakeClock, catalog, entry, latency_profile, manifest
from worlds import world

from gateway.catalogs.catalog import CatalogEntry, Quality, load_catalog
from gateway.forecasting.lengths import Counter, estimated
from gateway.forecasting.load import IDLE, LoadTracker
from gateway.model.messages import Answer, InputReport, LoadReport, ReplicaTimings
from gateway.model.request import Request
from gateway.model.tier import Tier
from gateway.router import LEAST_STEP, Router, utilities_of
from gateway.scheduling.policy import Reason
from gateway.tasks.classify import ClassifyParameters


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


def by_rate(rate: int) -> Counter:
    """Return a tokenizer of this many tokens a character."""
    return lambda text: rate * len(text)


def router_of(counters: Mapping[str, Counter] | None) -> Router:
    """Return a router over three checkpoints that are up and idle."""
    clock, load = FakeClock(), LoadTracker()
    for name in MEDIANS_S:
        load.reported(name, "replica", LoadReport(0.0, 0), clock())
    manifests = {name: manifest(name, median_s) for name, median_s in MEDIANS_S.items()}
    return Router(catalog(), manifests, load, clock, counters=counters)


def service_times_s(router: Router, *texts: str) -> dict[str, float]:
    """Return the forecast service time of a request on each checkpoint."""
    request = Request("classify", texts, ClassifyParameters(), TERMS, 1000.0)
    decision = router.decide(request, router.deadline(request), 0.0, every=True)
    return {one.name: one.forecast.service_time_s for one in decision.candidates if one.forecast}


def test_each_checkpoint_is_forecast_by_its_own_tokenizer() -> None:
    """Checkpoints whose tokenizers give a text unlike numbers of tokens are each forecast by their own number."""
    even = by_rate(2)
    router = router_of({SWIFT: by_rate(1), EVEN: even, GRAND: even})
    request = Request("classify", ("x" * 20, "x" * 30), ClassifyParameters(), TERMS, 1000.0)
    shape = router.shape(request)
    assert sorted(shape.tokens) == [(20, 30), (40, 60)] and shape.texts == 2
    for name, rate in ((SWIFT, 1), (EVEN, 2), (GRAND, 2)):
        assert shape.tokens[router.served[name].tokenizer] == (20 * rate, 30 * rate)
    found = service_times_s(router, "x" * 20)
    expected = {name: latency_profile(MEDIANS_S[name]).median_s(1, 20 * rate) for name, rate in
                ((SWIFT, 1), (EVEN, 2), (GRAND, 2))}  # fmt: skip
    assert found == pytest.approx(expected)


def test_what_one_tokenizer_counts_is_learnt_by_its_checkpoint_alone() -> None:
    """An answer teaches the slowdown of its checkpoint by that checkpoint's tokens, and no other's."""
    router = router_of({SWIFT: by_rate(1), EVEN: by_rate(2), GRAND: by_rate(3)})
    before = service_times_s(router, "x" * 20)
    shape = router.shape(Request("classify", ("x" * 20,), ClassifyParameters(), TERMS, 1000.0))
    took_s = latency_profile(MEDIANS_S[EVEN]).median_s(1, 40)
    answer = Answer((), InputReport(40, 40, False), ReplicaTimings(0.0, took_s, took_s, 1))
    forecaster = router.served[EVEN].forecaster
    usual = forecaster.forecast(shape, IDLE, 95, 1000.0, 1.0)
    for _ in range(100):
        forecaster.learn_service(usual, shape, answer)
    assert service_times_s(router, "x" * 20) == pytest.approx(before)


def test_checkpoints_of_one_tokenizer_count_a_text_once() -> None:
    """A text is counted once by each tokenizer, however many checkpoints have it."""
    counted: list[str] = []

    def counter(text: str) -> int:
        counted.append(text)
        return len(text)

    router = router_of(dict.fromkeys((SWIFT, EVEN, GRAND), counter))
    counted.clear()
    service_times_s(router, "a film", "good")
    assert counted == ["a film", "good"]


def test_without_a_tokenizer_a_text_is_forecast_by_its_characters() -> None:
    """Without counters, or for a checkpoint that has none, tokens are estimated by the characters."""
    text = "x" * 100
    for counters in (None, {GRAND: by_rate(1)}):
        router = router_of(counters)
        request = Request("classify", (text,), ClassifyParameters(), TERMS, 1000.0)
        assert router.shape(request).tokens[router.served[SWIFT].tokenizer] == (estimated(text),)
        expected_s = latency_profile(MEDIANS_S[SWIFT]).median_s(1, estimated(text))
        assert service_times_s(router, text)[SWIFT] == pytest.approx(expected_s)


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
    shipped = load_catalog(name)
    for task in shipped.tasks:
        entries = shipped.of_task(task)
        utilities = utilities_of(entries)
        for one in entries:
            for other in entries:
                if one.quality.standing > other.quality.standing:
                    assert utilities[one.name] > utilities[other.name]
