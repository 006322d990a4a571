"""`/translate` against a served application over real, tiny encoder-decoders of two families."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from served_replicas import served
from small_translators import make_translator_checkpoint, sentences

from exporters.export import export
from exporters.plan import Settings, VariantPlan
from exporters.sources.source import resolve_source
from gateway.model.manifest import Precision

pytestmark = [
    pytest.mark.export,
    pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses", "ignore:Moving the following attributes"),
]

ENTRY = """
  - {{name: {0}, task: translate, tier: {1}, family: {0}, source: {2}/{0}, licence: none, niceness: 0,
     precision: [fp32], quality: {{metric: chrF, value: {3}, data_set: none, reference: made up}}}}"""
CHECKPOINTS = {"marian": ("realtime", 40.0), "nllb": ("quality", 50.0)}
HEADERS = {"X-Latency-SLA-Ms": "60000"}
TEXT = " ".join(sentences(3, seed=31))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog file, with the variants beside it."""
    root = tmp_path_factory.mktemp("translators")
    entries = [ENTRY.format(name, tier, root, quality) for name, (tier, quality) in CHECKPOINTS.items()]
    (root / "catalog.yaml").write_text("name: translators\ncheckpoints:" + "".join(entries) + "\n")
    for name in CHECKPOINTS:
        source = make_translator_checkpoint(root / name, name)
        plan = VariantPlan(name, "translate", name, "onnx", Precision.FP32)
        settings = Settings(profile_budget_s=0.05)
        export(plan, resolve_source(str(source)), root / f"{name}-variant", lambda step, share: None, settings)
    return root / "catalog.yaml"


async def test_a_text_goes_to_who_speaks_its_languages_and_is_streamed_as_it_is_answered(catalog: Path) -> None:
    """A pair of few goes to whom it is of, the best that speaks both else; deltas are the answer; others are a 422."""

    def body(target: str, **others: object) -> dict[str, Any]:
        return {"inputs": TEXT, "parameters": {"src_lang": "en", "tgt_lang": target}, **others}

    async with (
        served(catalog.parent, list(CHECKPOINTS)) as url,
        httpx.AsyncClient(base_url=url, timeout=60, headers=HEADERS) as client,
    ):
        german = await client.post("/translate?details=true", json=body("deu"))
        pinned = await client.post("/translate", json=body("de"), headers={"X-Checkpoint": "marian"})
        streamed = await client.post("/translate", json=body("de", stream=True), headers={"X-Checkpoint": "marian"})
        french = await client.post("/translate", json=body("fr_XX"))
        refused = await client.post("/translate", json=body("tlh"))
        listed = (await client.get("/checkpoints")).json()["checkpoints"]
    assert german.status_code == french.status_code == 200
    assert german.headers["X-Checkpoint"] == french.headers["X-Checkpoint"] == "nllb"
    assert [one["pieces"] for one in german.json()["generation"]] == [3]
    (answer,) = pinned.json()
    told = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
    assert "".join(one["text"] for one in told[:-1]) == answer["translation_text"] != ""
    assert [*answer] == ["translation_text"] and len(told) > 3
    assert refused.status_code == 422 and "eng_Latn" in refused.json()["errors"][0]["message"]
    assert {one["name"]: len(one["languages"]) for one in listed} == {"marian": 0, "nllb": 202}
