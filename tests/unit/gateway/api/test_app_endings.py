"""Requests that end with a fault or because the client leaves: each has one record."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from fakes import ANSWER, scripted
from starlette.types import Message
from waiting import until
from worlds import World, called, client_of, embedding, gateway, generating, is_problem, world

from gateway.model.outcome import Outcome

pytestmark = pytest.mark.virtual_time

BODY = {"inputs": "a good film"}
WHOLE: Message = {"type": "http.request", "body": json.dumps(BODY).encode(), "more_body": False}
PART: Message = {"type": "http.request", "body": b"{", "more_body": True}
GONE: Message = {"type": "http.disconnect"}


async def test_a_fault_under_way_is_recorded_once() -> None:
    """An unexpected exception in a running request is a 500 with one FAILED record."""
    told, client = gateway()
    told.backend.fault = ZeroDivisionError()
    assert is_problem(await client.post("/classify", json=BODY), "internal_error", 500)
    assert told.kept.outcomes == [Outcome.FAILED]
    assert (told.kept.records[0].task, told.kept.records[0].budget_s) == ("classify", 1.0)
    metrics = (await client.get("/metrics")).text
    assert 'outcome="failed"' in metrics and "punctual_request_latency_seconds_count" not in metrics


async def test_a_fault_at_the_edge_is_recorded_once() -> None:
    """An unexpected exception before the service has the request is one FAILED record."""

    def broken() -> float:
        raise ZeroDivisionError

    told = world()
    with pytest.raises(ZeroDivisionError):
        await called(told, [WHOLE], clock=broken)
    assert told.kept.outcomes == [Outcome.FAILED] and not told.backend.dispatches


@pytest.mark.parametrize(
    ("path", "made", "task"),
    [
        ("/classify", world, "classify"),
        ("/v1/chat/completions", generating, "generate"),
        ("/v1/completions", generating, "generate"),
        ("/v1/embeddings", embedding, "embed"),
    ],
)
async def test_a_client_that_leaves_in_its_body_is_no_fault(path: str, made: Callable[[], World], task: str) -> None:
    """A client that hangs up within its body has one CANCELLED record; nothing runs and nothing is raised."""
    told = made()
    await called(told, [PART, GONE], path=path)
    assert [(one.task, one.outcome) for one in told.kept.records] == [(task, Outcome.CANCELLED)]
    assert not told.backend.dispatches


@pytest.mark.parametrize("messages", [[], [PART], [WHOLE], [WHOLE, GONE]])
async def test_a_server_that_cancels_the_call_stops_the_work(messages: list[Message]) -> None:
    """A call that the server cancels at any point has one CANCELLED record, and its dispatched work is cancelled."""
    told = world(scripted(None))
    call = asyncio.create_task(called(told, messages))
    await until(lambda: bool(told.backend.dispatches) == (WHOLE in messages))
    for _ in range(20):
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert told.kept.outcomes == [Outcome.CANCELLED]
    assert told.backend.cancelled == len(told.backend.dispatches)
    told.backend.behaviour = scripted(ANSWER)
    assert (await client_of(told).post("/classify", json=BODY)).status_code == 200


async def test_what_runs_nothing_is_not_recorded() -> None:
    """Requests to paths that run nothing have no record."""
    told, client = gateway()
    for path in ("/route", "/nowhere", "/healthz"):
        await client.post(path, content=b"nonsense")
    assert not told.kept.records
