"""The gauges of a gateway at a scrape, and that a client's input never adds a series."""

from __future__ import annotations

import asyncio

import pytest
from fakes import EVEN, GRAND, SWIFT, scripted
from scraped import samples, series, total
from worlds import SMALL, World, client_of, world

from gateway.observability.metrics import text_of
from gateway.state import GatewayState

pytestmark = pytest.mark.virtual_time


def state_of(told: World) -> str:
    """Return the gauges of a world as a scrape has them."""
    return text_of(GatewayState(told.service, told.catalog, "1.2.3", told.clock).collect())


async def test_the_gauges_are_those_of_this_moment() -> None:
    """The gauges show the requests under way, the replicas that are up and their backlogs at the scrape."""
    told = world(scripted(None))
    told.up(SWIFT, backlog_s=0.25)
    told.down(EVEN)
    task = asyncio.create_task(told.service.handle(told.request()))
    await asyncio.sleep(0)
    text = state_of(told)
    assert total(text, "punctual_requests_underway") == 1.0
    up = {one["checkpoint"]: value for one, value in samples(text, "punctual_checkpoint_replicas_up")}
    assert up == {SWIFT: 1.0, EVEN: 0.0, GRAND: 1.0}
    assert total(text, "punctual_checkpoint_replicas_expected") == 3.0
    assert total(text, "punctual_checkpoint_backlog_seconds", checkpoint=SWIFT) == 0.25
    assert not [one for one, _ in samples(text, "punctual_checkpoint_backlog_seconds") if one["checkpoint"] == EVEN]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert total(state_of(told), "punctual_requests_underway") == 0.0


async def test_what_an_answer_is_worth_is_told() -> None:
    """Quality, build, price and slowdown of every checkpoint are exported by an idle gateway."""
    text = state_of(world())
    worth = {(one["checkpoint"], one["tier"]): value for one, value in samples(text, "punctual_checkpoint_quality")}
    assert worth == {(SWIFT, "realtime"): 80.0, (EVEN, "balanced"): 85.0, (GRAND, "quality"): 90.0}
    assert samples(text, "punctual_build_info") == [({"version": "1.2.3", "catalog": "by-hand"}, 1.0)]
    assert samples(text, "punctual_congestion_price") == [({"task": "classify"}, 0.0)]
    assert samples(text, "punctual_waiting_requests") == [({"task": "classify"}, 0.0)]
    for name in ("pace_ratio", "threads"):
        assert [value for _, value in samples(text, f"punctual_checkpoint_{name}")] == [1.0] * 3


HOSTILE: tuple[tuple[str, dict[str, str], bytes], ...] = (
    ("/classify", {"X-Checkpoint": "nobody-{at}"}, b'{"inputs": "x"}'),
    ("/classify", {"X-Request-Id": "id-{at}", "traceparent": "00-{at:032x}-00000000000000ff-01"}, b'{"inputs": "x"}'),
    ("/classify", {"X-Min-Tier": "tier-{at}"}, b'{"inputs": "x"}'),
    ("/classify", {"X-SLA-Percentile": "{at}"}, b'{"inputs": "x"}'),
    ("/classify", {"X-Latency-SLA-Ms": "{at}", "X-SLA-Mode": "strict"}, b'{"inputs": "x"}'),
    ("/classify", {}, b'{"inputs": ["a", "b", "c"]}'),
    ("/classify", {}, b"\xff\x00"),
    ("/summarize", {}, b'{"inputs": "x", "parameters": {"domain": "d-1"}}'),
    ("/classify/{at}", {}, b'{"inputs": "x"}'),
    ("/task-{at}", {}, b'{"inputs": "x"}'),
    ("/route", {"X-Checkpoint": "nobody-{at}"}, b'{"task": "odd", "inputs": "x"}'),
)


async def test_nothing_a_client_sends_makes_a_series_more() -> None:
    """No input of a client adds a series: labels come from the catalog and the contract alone."""
    told = world(limits=SMALL)
    client = client_of(told)
    await client.post("/classify", json={"inputs": "x"})
    for name in (SWIFT, EVEN, GRAND):
        await client.post("/classify", json={"inputs": "x"}, headers={"X-Checkpoint": name})
    before = series((await client.get("/metrics")).text)
    for at in range(5):
        for path, headers, content in HOSTILE:
            sent = {name: value.format(at=at + 50) for name, value in headers.items()}
            await client.post(path.format(at=at), headers=sent, content=content)
    text = (await client.get("/metrics")).text
    assert series(text) == before
    offered = [path for path, _, _ in HOSTILE if path in ("/classify", "/summarize")]
    assert total(text, "punctual_requests_total") == 4 + 5 * len(offered)
