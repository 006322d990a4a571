"""CTRL end to end: its tokenizer made fast, a real export, its proof, and a replica that wants a control code."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import entry
from small_causal import END, generated, prompts
from small_ctrl import CODES, UNMADE, make_ctrl_checkpoint, small_ctrl, vocabulary
from transformers import CTRLTokenizer, pipeline

from deployments.engines.base import Logits
from deployments.engines.opening import open_causal_engine
from deployments.replica.generate.replica import GeneratorReplica, OpenCausal
from deployments.replica.generate.writing import Scribe, write_on
from deployments.replica.variant import open_variant
from exporters.export import export
from exporters.plan import Settings, VariantPlan
from exporters.sources.ctrl_words import GOES_ON, control_codes, fast_tokenizer
from exporters.sources.source import resolve_source
from gateway.model.manifest import Precision
from gateway.model.messages import Answer, Delta, Failure, FailureKind, Work
from gateway.model.tier import Tier
from gateway.tasks.generate import CausalManifest, GenerateParameters

pytestmark = pytest.mark.export

MOST = 12
TEXTS = [f"{CODES[at % len(CODES)]} {text}" for at, text in enumerate(prompts(4))]
ODD = ["a line\nand another \n\n end\n", "caf\u00e9 \u4f60\u597d \U0001f600", "unheard-of x7,  99%\tok", " ", "<unk> a"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CTRL, and its variant in fp32 beside it."""
    folder = make_ctrl_checkpoint(tmp_path_factory.mktemp("ctrl") / "source")
    plan = VariantPlan("small", "generate", "ctrl", "onnx", Precision.FP32)
    settings = Settings(profile_budget_s=0.05)
    export(plan, resolve_source(str(folder)), folder.parent / "variant", lambda step, share: None, settings)
    return folder


@pytest.fixture(scope="module")
def opened(source: Path) -> OpenCausal:
    """The variant, which has passed the checks of a replica."""
    found = open_variant(source.parent / "variant", 1)
    assert isinstance(found, OpenCausal)
    return found


def test_the_fast_tokenizer_reads_and_writes_as_the_slow_one(source: Path) -> None:
    """Words, parts of words, ends of lines and what no piece has become the ids that CTRL's own tokenizer gives."""
    slow = CTRLTokenizer.from_pretrained(source)
    fast = fast_tokenizer(slow)
    for text in [*TEXTS, *ODD[:4]]:
        ids = slow(text)["input_ids"]
        assert fast(text)["input_ids"] == ids
        said = fast.decode(ids, skip_special_tokens=True)
        assert said.strip() == slow.decode(ids, skip_special_tokens=True).removesuffix(GOES_ON).strip()
    pieces, _ = vocabulary()
    assert control_codes(fast) == {code: pieces[code] for code in CODES}


def test_a_word_that_merges_make_and_no_piece_is_is_read_in_parts(source: Path) -> None:
    """Where CTRL's own tokenizer gives the unknown token, the fast one gives parts that the weights know."""
    slow = CTRLTokenizer.from_pretrained(source)
    assert slow(UNMADE)["input_ids"] == [slow.unk_token_id]
    ids = fast_tokenizer(slow)(UNMADE)["input_ids"]
    assert len(ids) > 1 and slow.unk_token_id not in ids and slow.decode(ids) == UNMADE


def test_a_variant_writes_as_its_source(source: Path, opened: OpenCausal) -> None:
    """Every next token is the source's, and what is written greedily is what `generate` writes."""
    made = opened.manifest
    assert isinstance(made, CausalManifest)
    assert (made.verification.agreement, made.verification.texts) == (1.0, 8)
    assert sorted(made.control_codes) == sorted(CODES) and made.details()["control_codes"] == sorted(CODES)
    model = small_ctrl()
    for text in TEXTS:
        ids = opened.prompts.of_text(text)
        assert write_on(opened.engine, ids, (END,), MOST) == generated(model, ids, MOST)


def test_prompts_of_unlike_lengths_step_together(source: Path) -> None:
    """Positions and padding are right where a short prompt steps beside a long one."""
    engine = open_causal_engine("onnx", source.parent / "variant", 1)
    rows = [[5], list(range(6, 27)), [9, 8, 7]]
    none = np.zeros(1, dtype=np.int64)

    def begun() -> list[Any]:
        made = [engine.encode(np.asarray(row[:-1], dtype=np.int64)) for row in rows]
        for one, row in zip(made, rows, strict=True):
            one.step(np.asarray(row[-1:]), none)
        return made

    alone: list[Logits] = [one.step(np.asarray([4]), none)[0] for one in begun()]
    together = engine.step_together(begun(), [(np.asarray([4]), none)] * len(rows))
    assert np.allclose(np.concatenate(together), alone, atol=1e-4)


async def answered(opened: OpenCausal, texts: Sequence[str], **asked: Any) -> Answer | Failure:
    """What a replica answers to prompts, which are written on greedily, and emits if it is asked to stream."""
    scribe = Scribe(opened.manifest, opened.engine, opened.prompts)
    replica = GeneratorReplica(entry("ctrl", Tier.BALANCED, 40.0), scribe, 100, time.monotonic)
    replica.start()
    parameters = GenerateParameters(max_new_tokens=MOST, sample=False, **asked)
    told: list[Delta] = []
    work = Work("generate", tuple(texts), parameters, 600.0, False, "1", streamed=True)
    (found,) = await replica.handle([work], lambda place, delta: told.append(delta))
    await replica.stop(60)
    return found


async def test_a_replica_answers_as_the_pipeline(source: Path, opened: OpenCausal) -> None:
    """Prompts that share steps have the pipeline's texts, the space between prompt and first new word too.

    The pipeline leaves the mark that a word goes on at the end of a text, which is no text.
    """
    found = await answered(opened, TEXTS)
    assert isinstance(found, Answer)
    write = pipeline("text-generation", model=str(source), device="cpu")
    theirs = [
        write(text, max_new_tokens=MOST, do_sample=False, return_full_text=False, clean_up_tokenization_spaces=False)
        for text in TEXTS
    ]
    assert [one.generated_text for one in found.outputs] == [
        one[0]["generated_text"].removesuffix(GOES_ON) for one in theirs
    ]


@pytest.mark.parametrize("asked", [{}, {"truncate": 1}])
async def test_a_prompt_without_a_control_code_is_refused(opened: OpenCausal, asked: dict[str, int]) -> None:
    """A prompt that begins with another word, or whose code a cut takes away, is refused with the codes there are."""
    found = await answered(opened, [f"Links {prompts(2)[1]}" if asked else "the court"], **asked)
    assert isinstance(found, Failure) and found.kind is FailureKind.REFUSED
    assert found.detail == "a prompt must begin with one of its control codes: Links, Opinion, Wikipedia"
