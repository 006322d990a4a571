"""Ray Serve's own request headers, which its HTTP proxy obeys: from a client they switch no promise off here."""

from __future__ import annotations

import pytest
from fakes import ANSWER
from served_app import serving
from starlette.types import ASGIApp
from waiting import until
from worlds import OwnMetrics, World, world

from gateway.api import app
from gateway.model.messages import Answer, Work
from gateway.model.outcome import Outcome

BODY = b'{"inputs": "a good film"}'
HEADERS = {
    "no hang-ups": b"X-Request-Disconnect-Disabled: ?1\r\n",
    "a timeout": b"X-Request-Timeout-Seconds: 0.0001\r\n",
    "a model": b"serve_multiplexed_model_id: another\r\n",
    "a method": b"serve_call_method: another\r\n",
    "an id": b"serve_request_id: mine\r\n",
    "a session": b"x-session-id: mine\r\n",
}


def request(name: str) -> bytes:
    """Return a request with one of these headers."""
    length = b"Content-Length: %d\r\n\r\n" % len(BODY)
    return b"POST /classify HTTP/1.1\r\nHost: gateway\r\n" + HEADERS[name] + length + BODY


def application(told: World) -> ASGIApp:
    """Return the application over this world."""
    return app.build(told.service, OwnMetrics(told.catalog), told.catalog.limits, told.clock)


@pytest.mark.parametrize("name", HEADERS)
async def test_the_answer_is_as_without_it(name: str) -> None:
    """A request with one of Ray Serve's headers is answered by the contract, whatever it says, and by its own id."""

    def behave(checkpoint: str, work: Work) -> Answer:
        told.clock.advance(0.5)
        return ANSWER

    told = world(behave)
    async with serving(application(told)) as served, served.client() as client:
        await client.send(request(name))
        status, headers, _ = await client.answer()
    assert (status, headers["x-checkpoint"], headers["x-sla-met"]) == (200, "grand", "true")
    assert len(headers["x-request-id"]) == 32
    assert [one.outcome for one in told.kept.records] == [Outcome.IN_TIME]


@pytest.mark.parametrize("name", HEADERS)
async def test_a_hang_up_still_stops_the_work(name: str) -> None:
    """A client that hangs up cancels its work, whatever header it sent."""
    told = world(lambda checkpoint, work: None)
    async with serving(application(told)) as served:
        async with served.client() as client:
            await client.send(request(name))
            await until(lambda: len(told.backend.dispatches) == 1)
        await until(lambda: told.backend.cancelled == 1)
    assert told.kept.outcomes == [Outcome.CANCELLED]
