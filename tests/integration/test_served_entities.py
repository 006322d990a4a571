"""A stock client of `/tokens` against a served application over a real, tiny tagger."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import InferenceClient
from served_replicas import served
from small_checkpoints import WINDOW
from small_taggers import make_tagger_checkpoint
from transformers import pipeline

from exporters.export import export
from exporters.plan import Settings, VariantPlan
from exporters.sources.source import resolve_source
from gateway.model.manifest import Precision

pytestmark = pytest.mark.export

CATALOG = """
name: tags
checkpoints:
  - {{name: small, task: tokens, tier: quality, family: BERT, source: {0}/source, licence: none, precision: [fp32],
     quality: {{metric: F1, value: 50.0, data_set: none, reference: made up}}}}
"""
TEXT = "\U0001f600 the cafe\u0301 was good, and i loved the acting"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog file, with the variant beside it; the checkpoint has a strategy of its own."""
    root = tmp_path_factory.mktemp("tagger")
    source = make_tagger_checkpoint(root / "source", aggregation="average")
    plan = VariantPlan("small", "tokens", "BERT", "onnx", Precision.FP32)
    settings = Settings(profile_budget_s=0.05)
    export(plan, resolve_source(str(source)), root / "small-variant", lambda step, share: None, settings)
    (root / "catalog.yaml").write_text(CATALOG.format(root))
    return root / "catalog.yaml"


async def test_a_stock_client_finds_what_the_pipeline_finds(catalog: Path) -> None:
    """`InferenceClient.token_classification` gives the pipeline's entities; without a strategy the checkpoint's own."""
    async with served(catalog.parent, ["small"]) as url:
        client = InferenceClient(model=f"{url}/tokens")
        own = await asyncio.to_thread(client.token_classification, TEXT)
        single = await asyncio.to_thread(
            client.token_classification, TEXT, aggregation_strategy="none", ignore_labels=["O", "B-PER"]
        )
    source = str(catalog.parent / "source")
    expected: Any = pipeline("token-classification", model=source, aggregation_strategy="average")(TEXT)
    assert [(one.entity_group, one.word, one.start, one.end) for one in own] == [
        (one["entity_group"], one["word"], one["start"], one["end"] + TEXT.startswith("\u0301", one["end"]))
        for one in expected  # whose places lack the mark of a last letter
    ]
    assert [one.score for one in own] == pytest.approx([float(one["score"]) for one in expected], abs=1e-4)
    expected = pipeline("token-classification", model=source, ignore_labels=["O", "B-PER"])(TEXT)
    assert [(one.entity, one.index, one.start) for one in single] == [  # type: ignore[attr-defined]
        (one["entity"], one["index"], one["start"]) for one in expected
    ]


async def test_a_long_text_is_answered_whole(catalog: Path) -> None:
    """A text of many windows is answered to its end, and redacted; the details say that it was taken in windows."""
    text = " ".join(["good", "film", "zz9"] * WINDOW)
    async with served(catalog.parent, ["small"]) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        body = {"inputs": text, "parameters": {"ignore_labels": [], "redact": True}}
        told = (await client.post("/tokens?details=true", json=body)).json()
    entities, taken = told["outputs"][0]["entities"], told["input"]
    assert entities[0]["start"] == 0 and entities[-1]["end"] == len(text)
    assert all(one["end"] <= other["start"] for one, other in pairwise(entities))
    assert taken["windows"] > 3 and taken["tokens"] == taken["kept"] > 3 * WINDOW and not taken["truncated"]
