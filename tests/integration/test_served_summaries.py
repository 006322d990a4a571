"""Streamed summaries of a served application over a real, tiny encoder-decoder, read as clients read events."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from served_replicas import served
from small_seq2seq import articles, make_seq2seq_checkpoint

from exporters.export import export
from exporters.plan import Settings, VariantPlan
from exporters.sources.source import resolve_source
from gateway.model.manifest import Precision

pytestmark = pytest.mark.export

CATALOG = """
name: written
checkpoints:
  - {{name: small, task: summarize, tier: quality, family: BART, source: {0}/source, licence: none, precision: [fp32],
     niceness: 0,
     quality: {{metric: ROUGE-L, value: 50.0, data_set: none, reference: made up}}}}
"""
AMPLE = {"X-Latency-SLA-Ms": "60000"}
TEXTS = 20


@pytest.fixture(scope="module", params=["bart", "t5"])
def catalog(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog file, with the variant beside it: one writes bytes, the other pieces of words."""
    root = tmp_path_factory.mktemp(request.param)
    source = make_seq2seq_checkpoint(root / "source", request.param)
    texts = "".join(json.dumps({"text": text}) + "\n" for text in articles(12))
    (source / "verification.jsonl").write_text(texts)
    plan = VariantPlan("small", "summarize", request.param, "onnx", Precision.FP32)
    settings = Settings(profile_budget_s=0.05)
    export(plan, resolve_source(str(source)), root / "small-variant", lambda step, share: None, settings)
    (root / "catalog.yaml").write_text(CATALOG.format(root))
    return root / "catalog.yaml"


async def streamed(client: httpx.AsyncClient, body: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The texts of the deltas of a single input, and the data of the last event."""
    texts: list[str] = []
    async with client.stream("POST", "/summarize", json={**body, "stream": True}, headers=AMPLE) as response:
        name = ""
        async for line in response.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data" and not name:
                texts.append(json.loads(value)["text"])
            elif field == "data":
                assert name == "done"
                return texts, json.loads(value)
    raise AssertionError("the events have no end")


@pytest.mark.parametrize("beams", [1, 4])
async def test_streamed_answers_are_the_plain_ones(catalog: Path, beams: int) -> None:
    """The deltas of an answer, joined, are the plain answer to its text; it is written in as many steps."""
    async with served(catalog.parent, ["small"]) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        told = 0
        for text in articles(TEXTS):
            body = {"inputs": text, "parameters": {"num_beams": beams}}
            plain = (await client.post("/summarize?details=true", json=body, headers=AMPLE)).json()
            texts, done = await streamed(client, body)
            assert "".join(texts) == plain["outputs"][0]["summary_text"] == done["outputs"][0]["summary_text"]
            assert done["generation"][0]["steps"] == plain["generation"][0]["steps"]
            told += len(texts)
        assert beams > 1 or told > TEXTS  # several deltas an answer


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_reads_the_events(catalog: Path) -> None:
    """`curl -N` reads the events as they are documented."""
    async with served(catalog.parent, ["small"]) as url:
        body = json.dumps({"inputs": articles(1)[0], "stream": True, "parameters": {"num_beams": 1}})
        command = ["curl", "-sN", f"{url}/summarize", "-d", body]
        read = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True, timeout=60)
    blocks = read.stdout.decode().removesuffix("\n\n").split("\n\n")
    assert all(block.startswith('data: {"index":0,"text":"') for block in blocks[:-1]) and len(blocks) > 1
    name, data = blocks[-1].split("\n")
    assert name == "event: done" and json.loads(data.removeprefix("data: "))["finish_reason"] in ("stop", "length")
