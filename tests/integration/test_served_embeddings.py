"""Stock clients of `/embed` and `/similarity` against a served application over real, tiny embedders."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from served_replicas import served
from small_checkpoints import sentences
from small_embedders import DIMENSIONS, LENGTH, make_embedder_checkpoint

from exporters.export import export
from exporters.plan import Settings, VariantPlan
from exporters.sources.source import resolve_source
from gateway.model.manifest import Precision

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


async def test_a_stock_client_gets_vectors(variants: Path) -> None:
    """`InferenceClient.feature_extraction` gives what it gives against the API that it was written for."""
    async with served(variants, NAMES) as url:
        client = InferenceClient(model=f"{url}/embed")
        unit = await asyncio.to_thread(client.feature_extraction, TEXTS[0], normalize=True)
        raw = await asyncio.to_thread(client.feature_extraction, TEXTS[0])
    assert unit.dtype == np.float32 and unit.shape == raw.shape == (1, DIMENSIONS)
    assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-5)
    assert unit * np.linalg.norm(raw) == pytest.approx(raw, abs=1e-4)


async def test_a_stock_client_gets_similarities(variants: Path) -> None:
    """`InferenceClient.sentence_similarity` gives a score for each sentence: the cosine of the two vectors."""
    async with served(variants, NAMES) as url:
        client = InferenceClient(model=f"{url}/similarity", headers={"X-Checkpoint": "small"})
        scores = await asyncio.to_thread(client.sentence_similarity, TEXTS[0], other_sentences=TEXTS[1:])
        pinned = InferenceClient(model=f"{url}/embed", headers={"X-Checkpoint": "small"})
        vectors = [await asyncio.to_thread(pinned.feature_extraction, text, normalize=True) for text in TEXTS]
    assert scores == pytest.approx([float((vectors[0] * one).sum()) for one in vectors[1:]], abs=1e-5)


async def test_a_stock_client_chooses_how_a_text_is_cut(variants: Path) -> None:
    """`truncate` and `truncation_direction` reach the replica: a long text is refused, or keeps the side asked for."""
    long = " ".join(["good"] * LENGTH + ["bad"] * LENGTH)
    async with served(variants, NAMES) as url:
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
