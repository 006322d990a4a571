"""Laws of a checkpoint that serves several tasks, and of tasks that have no checkpoint yet."""

from __future__ import annotations

import pytest
from fake_embedders import FINE, QUICK, by_task, catalog, entry, manifests
from fakes import FakeBackend, FakeClock, Kept
from pydantic import ValidationError
from worlds import OwnMetrics, World, client_of, embedding, is_problem

from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.forecasting.load import LoadTracker
from gateway.model.coming import Coming, ComingState
from gateway.model.messages import LoadReport
from gateway.model.tier import Tier
from gateway.observability.metrics.exposition import text_of
from gateway.router import Router
from gateway.service import Service
from gateway.state import GatewayState

SCORED = {"/embed": {"inputs": "a cat"}, "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b"]}}}

SCORED_TASKS = ("embed", "similarity")


def bare(made: Catalog) -> World:
    """A gateway over a catalog of which nothing is prepared yet."""
    clock, load, backend, kept = FakeClock(), LoadTracker(), FakeBackend(by_task), Kept()
    service = Service(Router(made, {}, load, clock), backend, load, 9, (kept,), clock)
    return World(made, clock, load, backend, kept, service)


def test_one_checkpoint_is_a_candidate_of_each_of_its_tasks() -> None:
    """A checkpoint with `also` serves all its tasks, each with a forecaster of its own over the same replicas."""
    told = embedding()
    deciders = told.service.router.scheduler.deciders
    assert {task: {*one.by_name} for task, one in deciders.items()} == {task: {QUICK, FINE} for task in SCORED_TASKS}
    one, other = (deciders[task].by_name[FINE] for task in SCORED_TASKS)
    assert one.forecaster is not other.forecaster and one.slots == other.slots == 1


def test_work_of_the_other_task_is_waited_for() -> None:
    """What a replica has to do for one task delays the forecast of its other task."""
    told = embedding()
    free, busy = (told.service.router.scheduler.deciders[task].by_name[FINE] for task in SCORED_TASKS)
    assert free.others_s(told.clock()) == busy.others_s(told.clock()) == 0.0
    told.load.reported(FINE, "replica", LoadReport(0.0, 0), told.clock())
    told.load.dispatched(FINE, "replica", 0.3, told.clock())
    assert free.others_s(told.clock()) == busy.others_s(told.clock()) == pytest.approx(0.3)


async def test_each_task_is_counted_on_its_own() -> None:
    """Requests are counted under the task that they came to; the gauges of a checkpoint's replicas are there once."""
    told = embedding()
    scrape = OwnMetrics(told.catalog)
    async with client_of(told) as client:
        told.service.observers = (told.kept, scrape.metrics)
        for path, body in SCORED.items():
            assert (await client.post(path, json=body)).status_code == 200
    text = scrape.metrics.text()
    for task in SCORED_TASKS:
        assert f'requests_total{{checkpoint="{FINE}",outcome="in_time",task="{task}",tier="quality"}} 1.0' in text
    gauges = text_of(GatewayState(told.service, told.catalog, "1", told.clock).collect())
    for name, times in (("quality", 2), ("replicas_up", 1), ("threads", 1)):
        assert sum(line.startswith(f"punctual_checkpoint_{name}{{") for line in gauges.splitlines()) == 2 * times


async def test_a_task_without_a_checkpoint_is_unavailable_and_the_gateway_lives() -> None:
    """Requests to a task of which nothing is there yet are a 503 that names its checkpoints, pinned or not."""
    told = bare(catalog())
    async with client_of(told) as client:
        for path, body in SCORED.items():
            for headers in ({}, {"X-Checkpoint": QUICK}):
                assert is_problem(await client.post(path, json=body, headers=headers), "checkpoint_unavailable", 503)
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/metrics")).status_code == 200


async def test_a_late_checkpoint_joins_all_of_its_tasks() -> None:
    """A checkpoint that comes late answers each of its tasks from then on."""
    told = bare(catalog(default=FINE))
    for name in (QUICK, FINE):
        told.service.router.join(name, manifests()[name])
        told.up(name)
    async with client_of(told) as client:
        for path, body in SCORED.items():
            answer = await client.post(path, json=body)
            assert (answer.status_code, answer.headers["X-Checkpoint"]) == (200, FINE)
        assert (await client.get("/readyz")).status_code == 200


async def test_another_checkpoint_does_not_make_a_fixed_task_ready() -> None:
    """A task whose checkpoint is fixed is ready when that one is up; until then the others answer who pins them."""
    told = bare(catalog(default=FINE))
    told.service.router.join(QUICK, manifests()[QUICK])
    told.up(QUICK)
    async with client_of(told) as client:
        assert (await client.get("/readyz")).status_code == 503
        assert is_problem(await client.post("/embed", json=SCORED["/embed"]), "checkpoint_unavailable", 503)
        pinned = await client.post("/embed", json=SCORED["/embed"], headers={"X-Checkpoint": QUICK})
        assert pinned.headers["X-Checkpoint"] == QUICK
        assert (await client.post("/similarity", json=SCORED["/similarity"])).headers["X-Checkpoint"] == QUICK


async def test_what_will_not_come_keeps_nobody_waiting() -> None:
    """Where the weights of a task cannot be fetched, the gateway is ready without it."""
    told = bare(catalog())
    for name in (QUICK, FINE):
        told.service.router.told(Coming(name, ComingState.FAILED, "its weights cannot be fetched"))
    async with client_of(told) as client:
        assert (await client.get("/readyz")).status_code == 200


FAULTS = [
    ({"also": ["classify"]}, "no kind of checkpoint serves both 'embed' and 'classify'"),
    ({"also": ["embed"]}, "must name tasks other than `task`, each once"),
    ({"also": ["similarity", "similarity"]}, "must name tasks other than `task`, each once"),
    ({"also": ["rank"]}, "must be 'classify'"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_only_tasks_of_one_kind_go_together(change: dict[str, object], message: str) -> None:
    """A catalog may give a checkpoint only tasks that one kind of checkpoint serves."""
    given = entry(QUICK, Tier.REALTIME, 80.0).model_dump() | change
    with pytest.raises(ValidationError, match=message):
        CatalogEntry.model_validate(given)


@pytest.mark.parametrize(
    ("defaults", "message"),
    [
        ({"embed": "other"}, "must be one of quick, fine, got 'other'"),
        (
            {"similarity": QUICK},
            "is for tasks whose answers do not compare between checkpoints, and 'similarity' is none",
        ),
    ],
)
def test_a_default_checkpoint_is_one_of_a_task_that_is_fixed(defaults: dict[str, str], message: str) -> None:
    """The default of a task must serve it, and only tasks whose answers do not compare have one."""
    content = catalog().model_dump() | {"defaults": {"checkpoint": defaults}}
    with pytest.raises(ValidationError) as caught:
        Catalog.model_validate(content)
    assert message in str(caught.value.errors())


def test_without_a_default_the_best_answers() -> None:
    """Where the catalog names no default, the checkpoint of the best quality is it; a routed task has none."""
    assert catalog().default_checkpoint("embed") == FINE and catalog(QUICK).default_checkpoint("embed") == QUICK
    assert catalog(QUICK).default_checkpoint("similarity") is None
    assert [one.name for one in catalog(QUICK).routed("embed")] == [QUICK]
    assert [one.name for one in catalog(QUICK).routed("similarity")] == [QUICK, FINE]
