"""A fault in forecasting, pricing or scheduling never fails a request: the plain decision is made instead."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from fakes import EVEN, GRAND, MEDIANS_S, SWIFT, TERMS
from worlds import World, ended, strict, world

from gateway.forecasting.forecaster import ServedCheckpoint
from gateway.model.errors import UnknownCheckpoint
from gateway.model.faults import Part, attempt
from gateway.model.outcome import Outcome
from gateway.model.request import Terms
from gateway.scheduling.price import CapacityPrice


class Noted(list[str]):
    """Keeps the parts that failed, in order."""

    def __call__(self, part: Part, error: Exception) -> None:
        """Note one fault."""
        assert isinstance(error, ZeroDivisionError)
        self.append(part)


def fails(*_: object, **__: object) -> float:
    """Raise what none of the replaced methods should raise."""
    raise ZeroDivisionError


async def waited_for(told: World, terms: Terms) -> set[Outcome]:
    """Return the outcomes of twelve requests at once, more than the cores can begin with."""
    requests = (told.service.handle(told.request(terms)) for _ in range(12))
    return {one.record.outcome for one in await asyncio.gather(*requests)}


@pytest.mark.parametrize("terms", [TERMS, strict(), replace(TERMS, percentile=99.0), replace(TERMS, pinned=EVEN)])
@pytest.mark.parametrize(
    ("part", "owner", "method"),
    [
        ("pricing", CapacityPrice, "price"),
        ("scheduling", ServedCheckpoint, "reach_s"),
        ("scheduling", ServedCheckpoint, "run_s"),
    ],
)
async def test_requests_are_answered_where_reckoning_fails(
    monkeypatch: pytest.MonkeyPatch, terms: Terms, part: Part, owner: type, method: str
) -> None:
    """When pricing or scheduling fails, requests are answered in time, queued or not, whatever their terms."""
    noted = Noted()
    told = world(note=noted)
    assert await waited_for(told, terms) == {Outcome.IN_TIME}
    assert not noted
    monkeypatch.setattr(owner, method, fails)
    told.clock.advance(1.0)
    assert await waited_for(told, terms) == {Outcome.IN_TIME}
    assert part in noted


async def test_a_fault_in_every_forecast_leaves_the_profiles_to_decide_by() -> None:
    """When every forecast fails, the profiles decide, and the record has the forecast by profile."""
    noted = Noted()
    told = world(note=noted)
    for one in told.service.router.served.values():
        one.forecaster.forecast = fails  # type: ignore[method-assign, assignment]
    generous = await ended(told)
    assert (generous.record.checkpoint, generous.record.outcome) == (GRAND, Outcome.IN_TIME)
    assert generous.record.predicted_s is not None and generous.record.predicted_s > MEDIANS_S[GRAND]
    assert set(noted) == {"forecast"}
    told.kept.records.clear()
    hurried = (await ended(told, strict(0.001))).record
    assert (hurried.outcome, hurried.reason) == (Outcome.IN_TIME, "at-risk"), "nothing is refused on a guess"
    assert (await told.service.handle(told.request(replace(TERMS, pinned=SWIFT)))).record.checkpoint == SWIFT


async def test_a_fault_in_learning_loses_the_lesson_alone() -> None:
    """When learning from an arrival or an answer fails, the request is answered and the fault is noted."""
    noted = Noted()
    told = world(note=noted)
    for one in told.service.router.served.values():
        one.forecaster.learn = fails  # type: ignore[method-assign, assignment]
    told.service.router.scheduler.deciders["classify"].arrivals.arrived = fails  # type: ignore[method-assign, assignment]
    assert (await ended(told)).record.outcome is Outcome.IN_TIME
    assert noted == ["learning", "learning"]


async def test_what_is_the_clients_fault_is_no_fault_of_ours() -> None:
    """A client's error is raised as a problem and is not noted as a fault."""
    noted = Noted()
    finished = await ended(world(note=noted), replace(TERMS, pinned="nobody"))
    assert isinstance(finished.problem, UnknownCheckpoint) and not noted
    with pytest.raises(UnknownCheckpoint):
        attempt("forecast", noted, _unknown, lambda: None)


def _unknown() -> None:
    raise UnknownCheckpoint(["one"])
