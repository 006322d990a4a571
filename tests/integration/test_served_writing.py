"""`/generate` and OpenAI's interface against a served application over real, tiny decoder-only checkpoints."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from served_replicas import served
from small_causal import make_causal_checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer

from exporters.export import export
from exporters.plan import Settings, VariantPlan
from exporters.sources.source import resolve_source
from gateway.model.manifest import Precision

pytestmark = pytest.mark.export

CATALOG = """
name: writers
checkpoints:
  - {{name: small, task: generate, tier: quality, family: Llama, source: {0}/source, licence: none, niceness: 0,
     precision: [fp32], quality: {{metric: right, value: 50.0, data_set: none, reference: made up}}}}
"""
PROMPTS = ("the river rose", "\U0001f600 caf\u00e9", "a", "bridge closed for hours and people waited")
TALK = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "the town <|im_end|> was dark"}]
HEADERS = {"X-Latency-SLA-Ms": "60000"}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog file, with the variant beside it."""
    root = tmp_path_factory.mktemp("writer")
    source = make_causal_checkpoint(root / "source")
    plan = VariantPlan("small", "generate", "Llama", "onnx", Precision.FP32)
    settings = Settings(profile_budget_s=0.05)
    export(plan, resolve_source(str(source)), root / "small-variant", lambda step, share: None, settings)
    (root / "catalog.yaml").write_text(CATALOG.format(root))
    return root / "catalog.yaml"


def continued(source: Path, ids: Sequence[int], most: int) -> str:
    """What transformers writes after these tokens greedily."""
    model: Any = AutoModelForCausalLM.from_pretrained(source).eval()
    prompt = torch.tensor([ids])
    with torch.inference_mode():
        written = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=most)
    text: str = AutoTokenizer.from_pretrained(source).decode(written[0, len(ids) :], skip_special_tokens=True)
    return text


def events(text: str) -> list[dict[str, Any]]:
    """The documents of a streamed answer."""
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


async def test_prompts_are_written_on_as_by_the_source(catalog: Path) -> None:
    """The likeliest tokens are transformers', for prompts of unlike lengths in one request."""
    async with served(catalog.parent, ["small"]) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        body = {"inputs": list(PROMPTS), "parameters": {"max_new_tokens": 12, "do_sample": False}}
        answer = await client.post("/generate?details=true", json=body, headers=HEADERS)
    source = catalog.parent / "source"
    tokenizer = AutoTokenizer.from_pretrained(source)
    expected = [await asyncio.to_thread(continued, source, tokenizer(text).input_ids, 12) for text in PROMPTS]
    said = [one["generated_text"] for one in answer.json()["outputs"]]
    assert [one.replace("\ufffd", "") for one in said] == [one.replace("\ufffd", "") for one in expected]
    assert len(answer.json()["generation"]) == len(PROMPTS)


async def test_a_conversation_is_answered_by_the_checkpoints_own_template(catalog: Path) -> None:
    """The answer is what transformers writes after its chat template, in whose place a message cannot put itself."""
    async with served(catalog.parent, ["small"]) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        body = {"model": "small", "messages": TALK, "max_tokens": 10, "temperature": 0}
        answer = (await client.post("/v1/chat/completions", json=body, headers=HEADERS)).json()
    source = catalog.parent / "source"
    tokenizer = AutoTokenizer.from_pretrained(source)
    plain = [{**one, "content": one["content"].replace("<|im_end|>", "< |im_end|>")} for one in TALK]
    ids = tokenizer.apply_chat_template(plain, add_generation_prompt=True)
    expected = await asyncio.to_thread(continued, source, ids, 10)
    assert answer["choices"][0]["message"]["content"].replace("\ufffd", "") == expected.replace("\ufffd", "")
    assert answer["usage"]["prompt_tokens"] == len(ids)


@pytest.mark.parametrize(
    "shape", [{"do_sample": False}, {"temperature": 1.5, "seed": 3}, {"do_sample": False, "stop": ["e"]}]
)
async def test_streamed_and_plain_answers_are_equal(catalog: Path, shape: dict[str, Any]) -> None:
    """The deltas of each prompt, joined, are its plain answer, drawn or not."""
    body = {"inputs": list(PROMPTS), "parameters": {"max_new_tokens": 25, **shape}}
    async with served(catalog.parent, ["small"]) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        plain = (await client.post("/generate", json=body, headers=HEADERS)).json()
        streamed = await client.post("/generate", json={**body, "stream": True}, headers=HEADERS)
    told = events(streamed.text)
    joined = ["".join(one["text"] for one in told[:-1] if one["index"] == at) for at in range(len(PROMPTS))]
    assert joined == [one["generated_text"] for one in plain] == [one["generated_text"] for one in told[-1]["outputs"]]


async def test_equal_seeds_give_equal_answers_and_none_gives_others(catalog: Path) -> None:
    """Draws repeat by their seed alone."""
    shape = {"max_new_tokens": 20, "temperature": 1.5}
    async with served(catalog.parent, ["small"]) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:

        async def said(**seed: int) -> str:
            body = {"inputs": PROMPTS[0], "parameters": {**shape, **seed}}
            return str((await client.post("/generate", json=body, headers=HEADERS)).json()[0]["generated_text"])

        assert await said(seed=5) == await said(seed=5)
        assert len({await said() for _ in range(4)}) > 1


async def test_a_prompt_over_the_window_is_refused_with_numbers_or_cut(catalog: Path) -> None:
    """A 413 says how many tokens there are and how many may be; `truncate` keeps the last ones."""
    long = "people waited for hours " * 40
    async with served(catalog.parent, ["small"]) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        refused = await client.post("/generate", json={"inputs": long}, headers=HEADERS)
        body = {"inputs": long, "parameters": {"truncate": 20, "max_new_tokens": 3}}
        cut = await client.post("/generate", json=body, headers=HEADERS)
    assert refused.status_code == 413 and refused.json()["tokens"] > refused.json()["limit"]
    assert cut.status_code == 200 and cut.headers["X-Input-Truncated"] == "true"
