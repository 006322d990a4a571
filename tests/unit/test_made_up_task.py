"""A new task is one module on each side, registered by name; nothing else need change for it to be served."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest
from fakes import FakeClock, Kept
from made_up_task.exporter import COUNTER
from made_up_task.task import COUNT, CounterManifest
from worlds import OwnMetrics

from deployments.replica import kinds as replica_kinds
from deployments.replica.replica import ReplicaSettings, open_replica
from exporters.export import export, profile_again
from exporters.kinds import KINDS
from exporters.plan import VariantPlan
from exporters.sources.source import resolve_source
from gateway.api import app
from gateway.catalogs.catalog import Catalog, load_catalog
from gateway.forecasting.load import LoadTracker
from gateway.model.manifest import Precision, VariantManifest
from gateway.model.messages import Emit, LoadReport, Work, to_nobody
from gateway.router import Router
from gateway.scheduling.loop import Result
from gateway.service import Service
from gateway.tasks import TASKS, read_manifest
from gateway.tasks.base import Fact

CATALOG = """
name: counting
checkpoints:
  - name: counter
    task: count
    tier: quality
    family: list
    source: ./counter
    precision: [fp32]
    quality: {metric: exactness, value: 100.0, data_set: none, reference: made up}
    licence: Apache-2.0
"""
Done: TypeAlias = Callable[[Sequence[Result]], None]
Cancel: TypeAlias = Callable[[], None]
TEXT = "the cat saw the other cat"


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the task in three dicts, which is all that it needs beside its three modules."""
    monkeypatch.setitem(TASKS, "count", COUNT)
    monkeypatch.setitem(replica_kinds.KINDS, "counter", "made_up_task.replica")
    monkeypatch.setitem(KINDS, "counter", COUNTER)


@pytest.fixture
def variant(tmp_path: Path) -> Path:
    """A variant of a checkpoint of the new kind, exported like any other."""
    source = tmp_path / "counter"
    source.mkdir()
    for name, content in (("config.json", {"model_type": "counter"}), ("words.json", ["the"]), ("vocab.json", {})):
        (source / name).write_text(json.dumps(content))
    (source / "model.safetensors").write_bytes(b"")
    plan = VariantPlan("counter", "count", "list", "onnx", Precision.FP32)
    export(plan, resolve_source(str(source)), tmp_path / "variant", lambda step, share: None)
    return tmp_path / "variant"


def catalog_of(folder: Path) -> Catalog:
    """The catalog, as an operator writes it."""
    (folder / "catalog.yaml").write_text(CATALOG)
    return load_catalog(folder / "catalog.yaml")


async def client_of(catalog: Catalog, manifests: Mapping[str, VariantManifest], variant: Path) -> httpx.AsyncClient:
    """A client of a gateway that calls the variant's replica directly."""
    (entry,) = catalog.checkpoints
    replica = await asyncio.to_thread(open_replica, ReplicaSettings(entry, variant, 9), time.monotonic)  # it yields
    load, clock, kept, scrape = LoadTracker(), FakeClock(), Kept(), OwnMetrics(catalog)

    class Direct:
        def dispatch(
            self, checkpoint: str, batch: Sequence[Work], service_time_s: float, done: Done, emit: Emit = to_nobody
        ) -> Cancel:
            answering = asyncio.create_task(replica.handle(batch, emit))
            answering.add_done_callback(lambda task: done(task.result()))
            return lambda: None

    load.reported(entry.name, "replica", LoadReport(0.0, 0), clock())
    service = Service(Router(catalog, manifests, load, clock), Direct(), load, 9, (kept, scrape.metrics), clock)
    application = app.build(service, scrape, catalog.limits, clock)
    return httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://gateway")


def test_its_variant_is_made_measured_and_read(variant: Path) -> None:
    """A variant of the new kind is exported and profiled, and its own manifest is read back."""
    manifest = read_manifest(variant)
    assert isinstance(manifest, CounterManifest) and manifest.task == "count"
    assert profile_again(variant, 2, lambda step, share: None).profile.threads == 2


def test_a_catalog_may_name_it(tmp_path: Path) -> None:
    """A catalog may name the new task, with the task's own default budget and niceness."""
    catalog = catalog_of(tmp_path)
    assert catalog.tasks == ("count",) and catalog.budget_s("count") == 2.0
    assert catalog.checkpoints[0].niceness == 3


async def test_it_is_answered_explained_counted_and_described(variant: Path, tmp_path: Path) -> None:
    """The new task has an endpoint, and appears in `/route`, `/checkpoints`, the metrics and the OpenAPI document."""
    catalog = catalog_of(tmp_path)
    async with await client_of(catalog, {"counter": read_manifest(variant)}, variant) as client:
        body: dict[str, Any] = {"inputs": [TEXT, "a cat"]}
        answer = await client.post("/count", json=body)
        assert (answer.status_code, answer.json()) == (200, [{"words": 4}, {"words": 2}])
        assert answer.headers["x-checkpoint"] == "counter" and answer.headers["x-sla-met"] == "true"
        distinct = await client.post("/count", json=body | {"parameters": {"distinct": True}})
        assert distinct.json() == [{"words": 3}, {"words": 2}]
        options = {"options": {"use_cache": True}}
        detailed = (await client.post("/count?details=true", json=body | options)).json()
        assert detailed["ignored"] == ["options.use_cache"]
        marked = await client.post("/count", content=b'\xef\xbb\xbf{"inputs": "a cat \\ud83d"}')
        assert marked.json() == [{"words": 3}]
        refused = await client.post("/count", json=body | {"parameters": {"top_k": 1}})
        assert refused.status_code == 422 and "parameters.top_k" in refused.text
        routed = (await client.post("/route", json=body | {"task": "count"})).json()
        assert (routed["checkpoint"], routed["budget_ms"]) == ("counter", 2000.0)
        (listed,) = (await client.get("/checkpoints")).json()["checkpoints"]
        assert (listed["task"], listed["kind"]) == ("count", "counter")
        assert "punctual_requests_total{" in (scrape := (await client.get("/metrics")).text)
        assert 'task="count"' in scrape
        described = (await client.get("/openapi.json")).json()
        assert "/count" in described["paths"] and "CountBody" in described["components"]["schemas"]


async def test_it_may_fix_its_checkpoint_and_tell_facts_of_it(
    variant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new task may say that the budget never switches its checkpoint, and what its answers tell of that."""
    fact = Fact("window", "X-Window", int, "The tokens of one input.", lambda manifest: manifest.max_tokens)
    monkeypatch.setitem(TASKS, "count", replace(COUNT, fixed_checkpoint=True, facts=(fact,)))
    catalog = catalog_of(tmp_path)
    assert catalog.default_checkpoint("count") == "counter"
    async with await client_of(catalog, {"counter": read_manifest(variant)}, variant) as client:
        answer = await client.post("/count?details=true", json={"inputs": TEXT})
        assert answer.headers["x-route-reason"] == "pinned" and answer.headers["x-window"] == "64"
        assert answer.json()["facts"] == {"window": 64}
        assert (await client.get("/checkpoints")).json()["defaults"] == {"count": "counter"}
        described = (await client.get("/openapi.json")).json()
        assert described["components"]["headers"]["X-Window"]["schema"] == {"type": "integer"}
