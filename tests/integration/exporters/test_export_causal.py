"""Decoder-only checkpoints end to end: a real export of each family, its proof, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_checkpoints import edited
from processors import needs_int8
from small_causal import (
    CAUSAL_FAMILIES,
    END,
    TEMPLATE,
    WINDOW,
    generated,
    ids_of,
    make_causal_checkpoint,
    prompts,
    small_causal,
)

from deployments.engines.opening import CAUSAL_FILES, open_causal_engine
from deployments.replica.generate.prompts import TEMPLATE_FILE
from deployments.replica.generate.writing import write_on
from deployments.replica.variant import open_variant
from exporters.errors import ExportFailed, SourceRefused, VariantRefused
from exporters.export import export, profile_again
from exporters.kinds import kind_of
from exporters.kinds.causal import CAUSAL
from exporters.plan import Settings, VariantPlan
from exporters.sources.source import resolve_source
from gateway.model.manifest import Precision
from gateway.tasks.generate import CausalManifest

pytestmark = pytest.mark.export

MOST = 16


def exported(
    root: Path,
    source: Path,
    precision: Precision = Precision.FP32,
    floor: float | None = None,
) -> CausalManifest:
    """Export a checkpoint to the folder `variant` below a root."""
    plan = VariantPlan("small", "generate", "small", "onnx", precision)
    settings = Settings(floor=floor, profile_budget_s=0.05)
    made = export(plan, resolve_source(str(source)), root / "variant", lambda step, share: None, settings)
    assert isinstance(made, CausalManifest)
    return made


@pytest.mark.parametrize("family", CAUSAL_FAMILIES)
def test_a_variant_writes_as_its_source(tmp_path: Path, family: str) -> None:
    """In fp32 every next token is the source's, and what the variant writes greedily is what `generate` writes."""
    source = make_causal_checkpoint(tmp_path / "source", family)
    made = exported(tmp_path, source)
    found = made.verification
    assert (found.agreement, found.texts) == (1.0, 8)
    assert found.nats == pytest.approx(found.source_nats, abs=1e-4) and found.tokens > 100
    assert (made.max_tokens, made.generation.eos_token_ids, made.generation.max_new_tokens) == (WINDOW, (END,), 256)
    engine, model = open_causal_engine("onnx", tmp_path / "variant", 1), small_causal(family)
    for ids in map(ids_of, prompts(4)):
        theirs = generated(model, ids.tolist(), MOST)
        assert write_on(engine, ids.tolist(), (END,), MOST) == tuple(token for token in theirs if token != END)
    for golden in made.self_test:
        assert golden.token_ids == tuple(ids_of(golden.text).tolist())
        assert write_on(engine, golden.token_ids, (END,), 24) == golden.written
    assert {cell.batch for cell in made.step_profile.cells} == {1, 2, 4, 8}
    assert 1.0 <= made.output_tokens <= WINDOW


def test_the_chat_template_comes_along(tmp_path: Path) -> None:
    """The tokenizer's template is a file of the variant, with its digest; a checkpoint without one has none."""
    made = exported(tmp_path, make_causal_checkpoint(tmp_path / "source"))
    assert made.chat_template and {TEMPLATE_FILE, *CAUSAL_FILES} <= set(made.files)
    assert (tmp_path / "variant" / TEMPLATE_FILE).read_text() == TEMPLATE
    plain = exported(tmp_path, make_causal_checkpoint(tmp_path / "plain", template=None))
    assert not plain.chat_template and TEMPLATE_FILE not in plain.files


def test_a_template_in_a_file_of_its_own_comes_along(tmp_path: Path) -> None:
    """A template that lies beside the tokenizer's files is used, and a change of it is another checkpoint."""
    source = make_causal_checkpoint(tmp_path / "source", template=None)
    before = resolve_source(str(source)).sha256
    (source / TEMPLATE_FILE).write_text(TEMPLATE)
    assert resolve_source(str(source)).sha256 != before
    assert exported(tmp_path, source).chat_template
    assert (tmp_path / "variant" / TEMPLATE_FILE).read_text() == TEMPLATE


def test_a_replica_opens_a_variant(tmp_path: Path) -> None:
    """A variant passes the checks of a replica, and is profiled again as it was."""
    made = exported(tmp_path, make_causal_checkpoint(tmp_path / "source", "gpt2"))
    assert open_variant(tmp_path / "variant", 1).manifest == made
    again = profile_again(tmp_path / "variant", 1, lambda step, share: None, 0.05)
    assert isinstance(again, CausalManifest)
    assert [cell.tokens for cell in again.step_profile.cells] == [cell.tokens for cell in made.step_profile.cells]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_int8_weights_are_verified(tmp_path: Path, family: str) -> None:
    """A variant in int8 weights runs and is measured."""
    made = exported(tmp_path, make_causal_checkpoint(tmp_path / "source", family), Precision.INT8_WEIGHTS, 0.5)
    assert 0.5 <= made.verification.agreement <= 1.0


@needs_int8
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_variant_of_other_tokens_is_refused(tmp_path: Path, family: str) -> None:
    """A variant under the floor is refused, and says how far it is off."""
    source = make_causal_checkpoint(tmp_path / "source", family)
    with pytest.raises(VariantRefused, match=r"of \d+ next tokens are the source's, under the floor of 100.0%"):
        exported(tmp_path, source, Precision.INT8, 1.0)


def test_generation_settings_are_read(tmp_path: Path) -> None:
    """How the checkpoint writes by itself is in the manifest, all ends too."""
    own: dict[str, Any] = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 12}
    own |= {"eos_token_id": [END, 0], "repetition_penalty": 1.1}
    rules = exported(tmp_path, make_causal_checkpoint(tmp_path / "source", generation=own)).generation
    assert rules.eos_token_ids == (END, 0)
    assert (rules.sample, rules.temperature, rules.top_p, rules.top_k) == (
        True,
        0.7,
        0.9,
        50,
    )  # the library's own top_k
    assert (rules.max_new_tokens, rules.repetition_penalty) == (12, 1.1)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"num_beams": 4}, "num_beams=4"),
    ({"no_repeat_ngram_size": 3}, "no_repeat_ngram_size=3"),
    ({"min_new_tokens": 5}, "min_new_tokens=5"),
    ({"do_sample": True, "typical_p": 0.9}, "typical_p=0.9"),
    ({"suppress_tokens": [4]}, r"suppress_tokens=\[4\]"),
]


@pytest.mark.parametrize(("generation", "named"), REFUSED)
def test_what_replicas_do_not_do_is_refused_by_name(tmp_path: Path, generation: dict[str, Any], named: str) -> None:
    """A setting that would make the source write other text is refused, not dropped."""
    source = make_causal_checkpoint(tmp_path / "source", generation=generation)
    with pytest.raises(SourceRefused, match=f"asks for {named}, which is not supported"):
        exported(tmp_path, source)


def test_a_tokenizer_that_cuts_on_the_left_is_read_the_same(tmp_path: Path) -> None:
    """Texts over the window are read from their beginning, whichever side the checkpoint's tokenizer cuts."""
    source = make_causal_checkpoint(tmp_path / "source")
    edited("tokenizer_config.json", truncation_side="left")(source)
    (source / "verification.jsonl").write_text(json.dumps({"text": " ".join(prompts(20))}) + "\n")
    assert exported(tmp_path, source).verification.tokens == WINDOW


def test_weights_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    """A tokenizer with more tokens than the weights know is told as such."""
    source = make_causal_checkpoint(tmp_path / "source")
    document = json.loads((source / "tokenizer.json").read_bytes())
    document["model"]["vocab"] = {
        piece: place + (1000 if piece == "a" else 0) for piece, place in document["model"]["vocab"].items()
    }
    (source / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(SourceRefused, match="gives the token 1"):
        exported(tmp_path, source)


def test_a_template_that_takes_no_user_is_refused(tmp_path: Path) -> None:
    """A template that raises for a single message of a user is of no use to any client."""
    source = make_causal_checkpoint(tmp_path / "source", template="{{ raise_exception('only systems') }}")
    with pytest.raises(SourceRefused, match="takes no message of a user"):
        exported(tmp_path, source)


def test_a_template_that_replicas_read_otherwise_is_refused(tmp_path: Path) -> None:
    """A conversation that replicas would make other tokens of than the checkpoint's own tokenizer is not served."""
    source = make_causal_checkpoint(tmp_path / "source", template="{{ bos_token }}" + TEMPLATE)
    with pytest.raises(ExportFailed, match="a conversation is not read as by"):
        exported(tmp_path, source)


def test_texts_of_one_token_say_nothing(tmp_path: Path) -> None:
    """A checkpoint whose texts have nothing to predict is refused."""
    source = make_causal_checkpoint(tmp_path / "source")
    (source / "verification.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(SourceRefused, match="none of its verification texts has two tokens"):
        exported(tmp_path, source)


def test_a_kind_is_recognised_by_its_architecture(tmp_path: Path) -> None:
    """Decoders with a language head are of this kind; encoder-decoders and classifiers on a decoder are not."""
    source = make_causal_checkpoint(tmp_path / "source", "gpt2")
    assert kind_of(source, "here") is CAUSAL
    (source / "modules.json").write_text("[]")
    assert kind_of(source, "here").name == "embedder"
    (source / "modules.json").unlink()
    edited("config.json", architectures=["GPT2ForSequenceClassification"])(source)
    assert kind_of(source, "here").name == "classifier"
    edited("config.json", architectures=["T5WithLMHeadModel"], is_encoder_decoder=True)(source)
    assert kind_of(source, "here").name == "seq2seq"


def test_a_graph_that_forgets_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph whose steps do not continue what was read before does not pass the proof."""
    from deployments.engines import onnx_causal

    source = make_causal_checkpoint(tmp_path / "source")
    honest = onnx_causal.CausalGraph.run

    def forgetful(self: Any, tokens: Any, past: Any, scored_from: int) -> Any:
        return honest(self, tokens, {name: np.zeros_like(one) for name, one in past.items()}, scored_from)

    monkeypatch.setattr(onnx_causal.CausalGraph, "run", forgetful)
    with pytest.raises(ExportFailed, match="llama cannot be served as it is exported"):
        exported(tmp_path, source)
