"""Checkpoints that come later than the gateway: what is said of them, and how they join it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from fakes import EVEN, GRAND, MEDIANS_S, SWIFT, TERMS, manifest, scripted
from scraped import samples
from worlds import World, client_of, ended, is_problem, world

from gateway.model.coming import Coming, ComingState
from gateway.model.messages import LoadReport
from gateway.model.tier import Tier
from gateway.observability.metrics import text_of
from gateway.state import GatewayState

pytestmark = pytest.mark.virtual_time

BODY = {"inputs": "a good film"}
WAITING = {"checkpoint": GRAND, "state": "waiting", "reason": "it is prepared while the gateway serves"}


def join(told: World, checkpoint: str = GRAND) -> None:
    """Let a checkpoint's replica connect, and the router take it in."""
    told.up(checkpoint)
    told.service.router.join(checkpoint, manifest(checkpoint, MEDIANS_S[checkpoint]))


async def test_a_gateway_is_ready_without_what_is_still_to_come() -> None:
    """`/readyz` is 200 while a checkpoint is coming and says what it waits for; once it has joined, nothing comes."""
    told = world(coming=[GRAND])
    client = client_of(told)
    response = await client.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"ready": True, "missing": [], "coming": [WAITING]})
    told.service.router.told(Coming(GRAND, ComingState.FAILED, "its base cannot be fetched"))
    (coming,) = (await client.get("/readyz")).json()["coming"]
    assert coming == {"checkpoint": GRAND, "state": "failed", "reason": "its base cannot be fetched"}
    join(told)
    assert (await client.get("/readyz")).json() == {"ready": True, "missing": [], "coming": []}


async def test_what_has_joined_is_not_coming_again() -> None:
    """Late news of a checkpoint that has joined changes nothing."""
    told = world(coming=[GRAND])
    join(told)
    told.service.router.told(Coming(GRAND, ComingState.STARTING))
    assert not told.service.router.coming


async def test_a_task_without_a_replica_is_not_ready() -> None:
    """While a task has no checkpoint up, the gateway is not ready, whatever is still to come."""
    told = world(up=False, coming=[GRAND])
    client = client_of(told)
    response = await client.get("/readyz")
    assert (response.status_code, response.json()["missing"]) == (503, [SWIFT, EVEN])
    told.load.reported(GRAND, "replica", LoadReport(0.0, 0), told.clock())
    assert (await client.get("/readyz")).status_code == 503
    told.up(EVEN)
    response = await client.get("/readyz")
    assert (response.status_code, response.json()["missing"]) == (200, [SWIFT])


async def test_a_checkpoint_that_is_coming_gets_no_request_until_it_joins() -> None:
    """With a generous budget the best that is served answers, and the late one once it has joined."""
    told = world(coming=[GRAND])
    finished = await ended(told)
    assert finished.record.checkpoint == EVEN and not finished.record.degraded
    join(told)
    finished = await told.service.handle(told.request())
    assert finished.record.checkpoint == GRAND


async def test_a_pin_on_a_checkpoint_that_is_coming_is_unavailable() -> None:
    """A request that pins it gets 503 with Retry-After, on `/route` too, and an answer once it has joined."""
    told = world(coming=[GRAND])
    client, pinned = client_of(told), {"X-Checkpoint": GRAND}
    for path, body in (("/classify", BODY), ("/route", {"task": "classify", **BODY})):
        response = await client.post(path, json=body, headers=pinned)
        assert is_problem(response, "checkpoint_unavailable", 503)
        assert response.headers["Retry-After"] and response.json()["checkpoints"] == [GRAND]
    assert is_problem(
        await client.post("/classify", json=BODY, headers={"X-Checkpoint": "no-such"}), "unknown_checkpoint", 404
    )
    join(told)
    assert (await client.post("/classify", json=BODY, headers=pinned)).status_code == 200


async def test_the_catalog_shows_what_is_coming_apart() -> None:
    """`/checkpoints` lists served checkpoints with their manifests, and those that are coming with their state."""
    told = world(coming=[GRAND])
    client = client_of(told)
    shown = (await client.get("/checkpoints")).json()
    assert [one["name"] for one in shown["checkpoints"]] == [SWIFT, EVEN]
    (coming,) = shown["coming"]
    assert {name: coming[name] for name in ("name", "task", "tier", "state")} == {
        "name": GRAND,
        "task": "classify",
        "tier": "quality",
        "state": "waiting",
    }
    join(told)
    shown = (await client.get("/checkpoints")).json()
    assert [one["name"] for one in shown["checkpoints"]] == [SWIFT, EVEN, GRAND] and shown["coming"] == []


async def test_the_gauges_are_of_what_is_served() -> None:
    """A checkpoint without a manifest has no gauge: no replica of it is expected, so none is missing."""
    told = world(coming=[GRAND])

    def expected() -> set[str]:
        text = text_of(GatewayState(told.service, told.catalog, "1.2.3", told.clock).collect())
        return {one["checkpoint"] for one, _ in samples(text, "punctual_checkpoint_replicas_expected")}

    assert expected() == {SWIFT, EVEN}
    join(told)
    assert expected() == {SWIFT, EVEN, GRAND}


async def test_a_request_that_waits_is_never_given_what_its_terms_exclude() -> None:
    """A request that waits while a checkpoint below its least tier joins is still answered by one that it allows."""
    told = world(scripted(None, None, None), coming=[SWIFT])
    allowed = replace(TERMS, budget_s=0.012, min_tier=Tier.BALANCED)  # only the newcomer would be in time
    running = [asyncio.create_task(told.service.handle(told.request())) for _ in range(2)]
    waiting = asyncio.create_task(told.service.handle(told.request(allowed)))
    for _ in range(5):
        await asyncio.sleep(0)
    queue = told.service.router.scheduler.deciders["classify"].queue
    assert len(queue) == 1, "two cores are busy, and the third request waits"
    join(told, SWIFT)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(queue) == 0 and told.backend.dispatches[-1].checkpoint != SWIFT
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_the_worth_of_a_checkpoint_does_not_change_when_another_joins() -> None:
    """Utilities are those of the whole catalog from the start, so that no price jumps when a checkpoint joins."""
    whole, told = world(), world(coming=[EVEN])
    join(told, EVEN)
    for name, one in whole.service.router.served.items():
        assert told.service.router.served[name].utility == one.utility
