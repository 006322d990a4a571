"""Stock clients of `/embed` and `/similarity` against a served application over real, tiny embedders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Literal

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from small_checkpoints import sentences
from small_embedders import DIMENSIONS, LENGTH, make_embedder_checkpoint
from worlds import OwnMetrics

from deployments.replica.replica import Replica, ReplicaSettings, open_replica
from exporters.export import export
from exporters.plan import Settings, VariantPlan
from exporters.sources.source import resolve_source
from gateway.api import app
from gateway.api.server import HttpServer
from gateway.catalogs.catalog import Catalog, load_catalog
from gateway.forecasting.load import LoadTracker
from gateway.model.manifest import Precision
from gateway.model.messages import LoadReport, Work
from gateway.router import Router
from gateway.scheduling.loop import Result
from gateway.service import Service
from gateway.tasks import read_manifest

pytestmark = pytest.mark.export

NAMES = ("small", "smaller")
CATALOG = """
name: vectors
defaults:
  checkpoint: {{embed: smaller}}
checkpoints:
  - {{name: small, task: embed, also: [similarity], tier: quality, family: BERT, source: {0}/small, licence: none,
     precision: [fp32], quality: {{metric: rank, value: 90.0, data_set: none, reference: made up}}}}
  - {{name: smaller, task: similarity, also: [embed], tier: realtime, family: BERT, source: {0}/smaller, licence: none,
     precision: [fp32], quality: {{metric: rank, value: 80.0, data_set: none, reference: made up}}}}
"""
TEXTS = [one.text for one in sentences(6, seed=9)]


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the catalog and a variant of each checkpoint, which pool differently."""
    root = tmp_path_factory.mktemp("embedders")
    for name, pooling in zip(NAMES, ("mean_tokens", "cls_token"), strict=True):
        source = make_embedder_checkpoint(root / name, pooling=[pooling], normalize=False)
        plan = VariantPlan(name, "embed", "BERT", "onnx", Precision.FP32)
        settings = Settings(profile_budget_s=0.05)
        export(plan, resolve_source(str(source)), root / f"{name}-variant", lambda step, share: None, settings)
    (root / "catalog.yaml").write_text(CATALOG.format(root))
    return root


@dataclass
class OwnReplicas:
    """A `Backend` over replicas of this process."""

    replicas: dict[str, Replica]
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def dispatch(
        self, checkpoint: str, batch: Sequence[Work], service_time_s: float, done: Callable[[Sequence[Result]], None]
    ) -> Callable[[], None]:
        """Give the batch to the checkpoint's replica."""

        async def handle() -> None:
            done(await self.replicas[checkpoint].handle(batch))

        task = asyncio.get_running_loop().create_task(handle())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

        def cancel() -> None:
            task.cancel()

        return cancel


@asynccontextmanager
async def served(variants: Path) -> AsyncIterator[str]:
    """The URL of a gateway over the variants, on a free port of loopback."""
    catalog: Catalog = load_catalog(variants / "catalog.yaml")
    folders = {name: variants / f"{name}-variant" for name in NAMES}
    replicas = {
        entry.name: open_replica(ReplicaSettings(entry, folders[entry.name], 99), monotonic)
        for entry in catalog.checkpoints
    }
    load, scrape = LoadTracker(), OwnMetrics(catalog)
    for name, replica in replicas.items():
        replica.server.start()
        load.reported(name, "replica", LoadReport(0.0, 0), monotonic())
    router = Router(catalog, {name: read_manifest(folder) for name, folder in folders.items()}, load, monotonic)
    service = Service(router, OwnReplicas(replicas), load, 9, (scrape.metrics,), monotonic)
    server = HttpServer(app.build(service, scrape, catalog.limits, monotonic), catalog.limits, monotonic)
    await server.start("127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.drain(0.0, 0.0)
        for replica in replicas.values():
            await replica.server.stop(60)


async def test_a_stock_client_gets_vectors(variants: Path) -> None:
    """`InferenceClient.feature_extraction` gives what it gives against the API that it was written for."""
    async with served(variants) as url:
        client = InferenceClient(model=f"{url}/embed")
        unit = await asyncio.to_thread(client.feature_extraction, TEXTS[0], normalize=True)
        raw = await asyncio.to_thread(client.feature_extraction, TEXTS[0])
    assert unit.dtype == np.float32 and unit.shape == raw.shape == (1, DIMENSIONS)
    assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-5)
    assert unit * np.linalg.norm(raw) == pytest.approx(raw, abs=1e-4)


async def test_a_stock_client_gets_similarities(variants: Path) -> None:
    """`InferenceClient.sentence_similarity` gives a score for each sentence: the cosine of the two vectors."""
    async with served(variants) as url:
        client = InferenceClient(model=f"{url}/similarity", headers={"X-Checkpoint": "small"})
        scores = await asyncio.to_thread(client.sentence_similarity, TEXTS[0], other_sentences=TEXTS[1:])
        pinned = InferenceClient(model=f"{url}/embed", headers={"X-Checkpoint": "small"})
        vectors = [await asyncio.to_thread(pinned.feature_extraction, text, normalize=True) for text in TEXTS]
    assert scores == pytest.approx([float((vectors[0] * one).sum()) for one in vectors[1:]], abs=1e-5)


async def test_a_stock_client_chooses_how_a_text_is_cut(variants: Path) -> None:
    """`truncate` and `truncation_direction` reach the replica: a long text is refused, or keeps the side asked for."""
    long = " ".join(["good"] * LENGTH + ["bad"] * LENGTH)
    async with served(variants) as url:
        client = InferenceClient(model=f"{url}/embed", headers={"X-Checkpoint": "small"})

        async def vector(text: str, side: Literal["Left", "Right"] | None = None) -> list[float]:
            found = await asyncio.to_thread(client.feature_extraction, text, truncate=True, truncation_direction=side)
            return list(found[0])

        head = await vector(" ".join(["good"] * (LENGTH - 2)))
        tail = await vector(" ".join(["bad"] * (LENGTH - 2)))
        assert await vector(long) == await vector(long, "Right") == pytest.approx(head, abs=1e-4)
        assert await vector(long, "Left") == pytest.approx(tail, abs=1e-4)
        with pytest.raises(HfHubHTTPError, match="413"):
            await asyncio.to_thread(client.feature_extraction, long, truncate=False)
        with pytest.raises(HfHubHTTPError, match="422"):
            await asyncio.to_thread(client.feature_extraction, "good", prompt_name="query")
