"""A stock client of `/fill` against a served application over real, tiny fillers of different masks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from served_replicas import served
from small_fillers import make_filler_checkpoint
from transformers import pipeline

from exporters.export import export
from exporters.plan import Settings, VariantPlan
from exporters.sources.source import resolve_source
from gateway.model.manifest import Precision
from gateway.model.request import BUDGET, CHECKPOINT

pytestmark = pytest.mark.export

MASKS = {"bert": "[MASK]", "roberta": "<mask>"}
ENTRY = """
  - {{name: {1}, task: fill, tier: quality, family: BERT, source: {0}/{1}, licence: none, precision: [fp32],
     quality: {{metric: accuracy, value: 50.0, data_set: none, reference: made up}}}}
"""


async def test_a_stock_client_gets_the_pipeline_s_words(tmp_path: Path) -> None:
    """`InferenceClient.fill_mask` gives the pipeline's words of either checkpoint, whichever mask the text has."""
    for family in MASKS:
        make_filler_checkpoint(tmp_path / family, family)
        plan, settings = VariantPlan(family, "fill", "BERT", "onnx", Precision.FP32), Settings(profile_budget_s=0.05)
        source = resolve_source(str(tmp_path / family))
        export(plan, source, tmp_path / f"{family}-variant", lambda step, share: None, settings)
    entries = "".join(ENTRY.format(tmp_path, family) for family in MASKS)
    (tmp_path / "catalog.yaml").write_text(f"name: masks\ncheckpoints:{entries}")
    async with served(tmp_path, list(MASKS)) as url:
        for family, own in MASKS.items():
            client = InferenceClient(model=f"{url}/fill", headers={CHECKPOINT: family, BUDGET: "60000"})
            text = "the {} was \U0001f600 good"
            told = [await asyncio.to_thread(client.fill_mask, text.format(mask), top_k=3) for mask in MASKS.values()]
            expected: Any = pipeline("fill-mask", model=str(tmp_path / family))(text.format(own), top_k=3)
            for words in told:
                assert [(one.token, one.token_str, one.sequence) for one in words] == [
                    (one["token"], one["token_str"], one["sequence"]) for one in expected
                ]
                assert [one.score for one in words] == pytest.approx([one["score"] for one in expected], abs=1e-4)
