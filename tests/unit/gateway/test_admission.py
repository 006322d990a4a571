"""Which requests are admitted, on which checkpoint, and what the gateway learns from them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from fakes import ANSWER, EVEN, GRAND, SWIFT, TERMS, scripted
from waiting import until
from worlds import ended, strict, took, world

from gateway.catalogs.catalog import Limits
from gateway.model.errors import BudgetInfeasible, CheckpointUnavailable, InvalidRequest, Overloaded, UnknownCheckpoint
from gateway.model.messages import Answer, InputReport, ReplicaTimings
from gateway.model.outcome import Outcome
from gateway.model.request import Terms
from gateway.model.tier import Tier
from gateway.service import Finished

pytestmark = pytest.mark.virtual_time


async def test_less_time_degrades_and_says_so() -> None:
    """A budget too short for the best checkpoint is answered by a lesser one, and the record says degraded."""
    record = (await ended(world(), replace(TERMS, budget_s=0.030))).record
    assert (record.checkpoint, record.reason, record.degraded) == (EVEN, "fits", True)


async def test_congestion_is_told_from_slowness() -> None:
    """The reason is congestion where a better checkpoint would fit if it were idle."""
    told = world()
    told.up(GRAND, backlog_s=5.0)
    record = (await ended(told)).record
    assert (record.checkpoint, record.reason, record.degraded) == (EVEN, "congestion", True)


async def test_no_more_are_let_in_than_the_limit() -> None:
    """A request over the limit is refused with a 429 and Retry-After, and a place is free again when a request ends."""
    told = world(scripted(None), Limits(max_concurrent_requests=2))
    inside = [asyncio.create_task(told.service.handle(told.request())) for _ in range(2)]
    await until(lambda: len(told.backend.dispatches) == 2)
    finished = await ended(told)
    assert isinstance(finished.problem, Overloaded)
    assert finished.record.outcome is Outcome.SHED
    assert int(finished.problem.headers()["Retry-After"]) >= 1
    for task in inside:
        task.cancel()
    await asyncio.wait(inside)
    told.backend.behaviour = scripted(ANSWER)
    assert (await told.service.handle(told.request())).answer is ANSWER


async def test_strict_refuses_what_no_idle_gateway_could_make() -> None:
    """A budget that no idle gateway can meet is infeasible, and the least feasible budget it names is admitted."""
    told = world()
    finished = await ended(told, strict(0.001))
    assert isinstance(finished.problem, BudgetInfeasible)
    assert finished.record.outcome is Outcome.INFEASIBLE and not told.backend.dispatches
    assert finished.problem.members["feasible_checkpoints"] == [SWIFT]
    least_ms = finished.problem.members["min_feasible_ms"]
    assert isinstance(least_ms, float)
    again = await told.service.handle(told.request(strict(least_ms / 1000)))
    assert again.record.outcome is Outcome.IN_TIME


@pytest.mark.parametrize("elapsed_s", [0.0, 0.4])
@pytest.mark.parametrize("backlog_s", [0.0, 0.002])
async def test_strict_lets_in_from_the_budget_that_its_refusal_names(elapsed_s: float, backlog_s: float) -> None:
    """The least budget that is let in, as a refusal names it, is let in, and any budget below it is refused."""
    told = world()
    for name in (SWIFT, EVEN, GRAND) if backlog_s else ():
        told.up(name, backlog_s=backlog_s)

    async def asked(budget_s: float) -> Finished:
        request = told.request(strict(budget_s))
        told.clock.advance(elapsed_s)
        return await told.service.handle(request)

    problem = (await asked(elapsed_s + 0.0001)).problem
    assert isinstance(problem, BudgetInfeasible)
    admitted_ms, feasible_ms = problem.members["min_admitted_ms"], problem.members["min_feasible_ms"]
    assert isinstance(admitted_ms, float) and isinstance(feasible_ms, float) and admitted_ms < feasible_ms
    assert isinstance((await asked((admitted_ms - 0.2) / 1000)).problem, BudgetInfeasible)
    let_in = await asked(admitted_ms / 1000)
    assert let_in.record.checkpoint is not None and let_in.record.reason == "at-risk"


async def test_the_least_feasible_budget_has_the_time_that_went_by() -> None:
    """The least feasible budget includes the time that passed before the decision."""
    told = world()

    async def read_in(seconds: float, budget_s: float) -> Finished:
        request = told.request(strict(budget_s))
        told.clock.advance(seconds)
        return await told.service.handle(request)

    problem = (await read_in(0.4, 0.41 - 0.0085)).problem
    assert isinstance(problem, BudgetInfeasible)
    least_ms = problem.members["min_feasible_ms"]
    assert isinstance(least_ms, float) and 400 < least_ms < 410
    assert (await read_in(0.4, least_ms / 1000)).record.outcome is Outcome.IN_TIME


async def test_strict_refuses_for_load_and_says_when_to_come_back() -> None:
    """A strict request refused for load is admitted after the wait that its refusal names."""
    told = world()
    for name in (SWIFT, EVEN, GRAND):
        told.up(name, backlog_s=3.0)
    finished = await ended(told, strict(0.5))
    assert isinstance(finished.problem, Overloaded)
    assert finished.record.outcome is Outcome.SHED and not told.backend.dispatches
    wait_ms = finished.problem.members["retry_after_ms"]
    assert isinstance(wait_ms, int)
    assert int(finished.problem.headers()["Retry-After"]) * 1000 >= wait_ms
    told.clock.advance(wait_ms / 1000)
    assert (await told.service.handle(told.request(strict(0.5)))).answer is ANSWER


async def test_with_nothing_up_the_client_is_told_which() -> None:
    """A request while nothing is up is a 503 that names the checkpoints that could have answered."""
    told = world(up=False)
    assert told.service.missing() == (SWIFT, EVEN, GRAND)
    finished = await ended(told, replace(TERMS, min_tier=Tier.BALANCED))
    assert isinstance(finished.problem, CheckpointUnavailable)
    assert finished.problem.members["checkpoints"] == [GRAND, EVEN]


async def test_a_pin_is_kept_or_refused_by_name() -> None:
    """A pinned checkpoint answers, however slow; an unknown one is a 404 that lists the names there are."""
    record = (await ended(world(), replace(TERMS, pinned=GRAND, budget_s=0.001))).record
    assert (record.checkpoint, record.reason) == (GRAND, "pinned")
    finished = await ended(world(), replace(TERMS, pinned="nobody"))
    assert isinstance(finished.problem, UnknownCheckpoint)
    assert finished.problem.members["checkpoints"] == [SWIFT, EVEN, GRAND]
    assert finished.record.outcome is Outcome.INVALID


@pytest.mark.parametrize(
    ("terms", "named"),
    [
        (replace(TERMS, pinned=SWIFT, min_tier=Tier.QUALITY), ["X-Checkpoint", "X-Min-Tier"]),
        (replace(TERMS, pinned=SWIFT, min_tier=Tier.QUALITY, strict=True), ["X-Checkpoint", "X-Min-Tier"]),
    ],
)
@pytest.mark.parametrize("up", [True, False])
async def test_terms_that_nothing_meets_are_no_outage(terms: Terms, named: list[str], up: bool) -> None:
    """Terms that no checkpoint of the catalog meets are a 422 that names the headers, whatever is up."""
    finished = await ended(world(up=up), terms)
    assert isinstance(finished.problem, InvalidRequest)
    assert (finished.problem.http_status, finished.record.outcome) == (422, Outcome.INVALID)
    errors = finished.problem.members["errors"]
    assert isinstance(errors, list)
    assert [error["header"] for error in errors] == named
    assert all(name in finished.problem.detail for name in named)


async def test_the_forecast_learns_from_answers() -> None:
    """A checkpoint that keeps exceeding its profile is soon no longer chosen for a short budget."""
    told = world()
    told.backend.behaviour = took(told, 0.200)
    terms = replace(TERMS, budget_s=0.100)
    chosen = [(await told.service.handle(told.request(terms))).record.checkpoint for _ in range(60)]
    assert chosen[0] == GRAND and chosen[-1] != GRAND


async def test_a_cut_text_is_reported() -> None:
    """A cut text is recorded with the tokens that it has and those that were kept, as the replica counted them."""
    cut = Answer(ANSWER.outputs, InputReport(900, 64, True), ReplicaTimings(0.0, 0.002, 0.002, 1))
    record = (await ended(world(scripted(cut)), inputs=("x" * 100,))).record
    assert (record.tokens, record.kept, record.truncated) == (900, 64, True)
