"""The clock of a budget: from a request's first byte to its answer's last."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from starlette.types import Message, Scope
from worlds import OwnMetrics, World, world

from gateway.api import app
from gateway.api.connection import FIRST_BYTE
from gateway.model.outcome import Outcome

pytestmark = pytest.mark.virtual_time

BODY = json.dumps({"inputs": "a good film"}).encode()


@dataclass
class Edge:
    """The application over a world, and a server that takes a while to write each answer."""

    told: World
    writing_s: float = 0.0
    headers: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.application = app.build(
            self.told.service, OwnMetrics(self.told.catalog), self.told.catalog.limits, self.told.clock
        )

    async def ask(self, budget_ms: float, first_byte_s: float | None) -> dict[str, str]:
        """Post one request, and return the headers of its answer."""
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": "/classify",
            "query_string": b"",
            "headers": [(b"x-latency-sla-ms", b"%g" % budget_ms)],
        }
        if first_byte_s is not None:
            scope[FIRST_BYTE] = first_byte_s

        async def receive() -> Message:
            return {"type": "http.request", "body": BODY, "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.headers.append({name.decode(): value.decode() for name, value in message["headers"]})
            else:
                self.told.clock.advance(self.writing_s)

        await self.application(scope, receive, send)
        return self.headers[-1]


async def test_the_budget_counts_from_the_first_byte() -> None:
    """The time between a request's first byte and its handler is in its latency, and may cost it its promise."""
    told = world()
    edge = Edge(told)
    told.clock.advance(0.4)
    assert (await edge.ask(500, told.clock() - 0.4))["x-sla-met"] == "true"
    assert (await edge.ask(300, told.clock() - 0.4))["x-sla-met"] == "false"
    assert [round(record.latency_s, 6) for record in told.kept.records] == [0.4, 0.4]
    assert told.kept.outcomes == [Outcome.IN_TIME, Outcome.LATE]


async def test_a_server_that_does_not_tell_the_first_byte_leaves_the_handlers_clock() -> None:
    """Without the first byte the budget counts from the handler's start."""
    told = world()
    assert (await Edge(told).ask(300, None))["x-sla-met"] == "true"
    assert told.kept.records[0].latency_s == 0.0


async def test_the_time_of_writing_is_learnt_and_spent() -> None:
    """Answers that take 20 ms to write are promised, and reported, as 20 ms later after some of them."""
    told = world()
    edge = Edge(told, writing_s=0.02)
    *_, last = [await edge.ask(1000, told.clock()) for _ in range(200)]
    assert told.kept.records[0].latency_s == 0.0
    assert told.kept.records[-1].latency_s == pytest.approx(0.02, abs=0.001)
    assert float(last["x-predicted-latency-ms"]) >= 19
    assert last["x-latency-sla-ms"] == "1000"
    assert (await edge.ask(15, told.clock()))["x-sla-met"] == "false"


async def test_what_is_refused_at_the_edge_teaches_nothing() -> None:
    """Only answers of the service teach the time of writing."""
    told = world()
    edge = Edge(told, writing_s=5.0)
    for _ in range(5):
        await edge.ask(-1, told.clock())
    edge.writing_s = 0.0
    await edge.ask(1000, told.clock())
    assert told.kept.records[-1].latency_s == 0.0
