"""Laws of encoder-decoder graphs in ONNX Runtime, on real architectures: they write what the model writes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from optimum.exporters.onnx import onnx_export_from_model
from small_seq2seq import (
    SEQ2SEQ_FAMILIES,
    TorchDecoder,
    articles,
    finish,
    generate,
    rules_of,
    seq2seq_tokenizer,
    small_seq2seq,
)
from transformers import PreTrainedModel

from deployments.engines.base import FIRST_STEP_FILE, NEXT_STEP_FILE, SEQ2SEQ_FILES, TokenIds
from deployments.engines.onnx_seq2seq import OnnxSeq2Seq
from deployments.replica.writing.beam_search import BeamSearch
from exporters.export import quiet_libraries
from exporters.kinds.graphs import quantise

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[PreTrainedModel, Path]]:
    """A tiny model of each family with the folder of its fp32 graphs."""
    root = tmp_path_factory.mktemp("graphs")
    made = {}
    for family in SEQ2SEQ_FAMILIES:
        with quiet_libraries():  # each has a model of its own, since an export changes T5's encoder
            onnx_export_from_model(
                small_seq2seq(family),
                output=root / family,
                task="text2text-generation-with-past",
                do_validation=False,
            )
        made[family] = small_seq2seq(family), root / family
    return made


def texts(family: str, count: int) -> list[TokenIds]:
    """Token ids (tokens,) of `count` texts."""
    tokenizer = seq2seq_tokenizer(family)
    return [np.array(tokenizer.encode(text).ids, dtype=np.int64) for text in articles(count)]


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("family", SEQ2SEQ_FAMILIES)
def test_graphs_write_what_generate_writes(
    exported: dict[str, tuple[PreTrainedModel, Path]], family: str, beams: int
) -> None:
    """The graphs write the tokens of `generate`, with any number of beams, for one text after another on one engine."""
    model, folder = exported[family]
    engine = OnnxSeq2Seq.open(folder, 1)
    asked = rules_of(model, max_new_tokens=16, beams=beams, no_repeat_ngram_size=3, length_penalty=2.0)
    special = {asked.decoder_start_token_id, asked.pad_token_id, *asked.eos_token_ids}
    for ids in texts(family, 3):
        expected = tuple(token for token in generate(model, ids, asked) if token not in special)
        assert finish(BeamSearch(asked), engine.encode(ids)) == expected


@pytest.mark.parametrize("family", SEQ2SEQ_FAMILIES)
def test_rows_follow_their_origins(exported: dict[str, tuple[PreTrainedModel, Path]], family: str) -> None:
    """The logits of each row are the model's own, whatever rows fork, end or swap.

    Two texts at once do not affect each other.
    """
    model, folder = exported[family]
    engine = OnnxSeq2Seq.open(folder, 1)
    steps = [([5], [0]), ([6, 7, 8], [0, 0, 0]), ([9, 4, 9], [2, 0, 1]), ([4, 4, 5, 6], [0, 0, 2, 1]), ([8, 3], [3, 1])]
    pairs = [(engine.encode(ids), TorchDecoder(model, ids)) for ids in texts(family, 2)]
    for tokens, origins in steps:
        for ours, theirs in pairs:
            given = np.array(tokens), np.array(origins)
            np.testing.assert_allclose(ours.step(*given), theirs.step(*given), atol=5e-3)  # a wrong row is off by 1


@pytest.mark.parametrize("family", SEQ2SEQ_FAMILIES)
def test_what_is_not_shared_is_copied_to_the_same_effect(
    exported: dict[str, tuple[PreTrainedModel, Path]], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs that take a row of cross-attention for every beam get copies and write the same tokens."""
    model, folder = exported[family]
    asked = rules_of(model, max_new_tokens=8, beams=3, no_repeat_ngram_size=2)
    ids = texts(family, 1)[0]
    shared = finish(BeamSearch(asked), OnnxSeq2Seq.open(folder, 1).encode(ids))
    monkeypatch.setattr("deployments.engines.onnx_seq2seq.shares_cross", lambda *graph: False)
    assert finish(BeamSearch(asked), OnnxSeq2Seq.open(folder, 1).encode(ids)) == shared


def test_an_int8_decoder_runs(exported: dict[str, tuple[PreTrainedModel, Path]], tmp_path: Path) -> None:
    """An int8 decoder runs to the requested length."""
    model, folder = exported["bart"]
    with quiet_libraries():
        for name in SEQ2SEQ_FILES:
            quantise(folder / name, tmp_path / name)
    asked = rules_of(model, max_new_tokens=8, beams=4, min_new_tokens=8)
    search = BeamSearch(asked)
    finish(search, OnnxSeq2Seq.open(tmp_path, 2).encode(texts("bart", 1)[0]))
    assert search.steps == 8


def test_a_first_step_of_several_rows_is_refused(exported: dict[str, tuple[PreTrainedModel, Path]]) -> None:
    """A first step with several rows is refused, since there is only row 0 to continue."""
    decoder = OnnxSeq2Seq.open(exported["t5"][1], 1).encode(texts("t5", 1)[0])
    with pytest.raises(ValueError, match="2 rows"):
        decoder.step(np.array([0, 0]), np.array([0, 0]))


def test_graphs_that_do_not_fit_are_refused_as_they_are_opened(
    exported: dict[str, tuple[PreTrainedModel, Path]], tmp_path: Path
) -> None:
    """A graph with an unknown input, a missing output or no past is refused by name when it is opened."""
    folder = exported["t5"][1]
    shutil.copytree(folder, tmp_path / "swapped")
    shutil.copy(folder / FIRST_STEP_FILE, tmp_path / "swapped" / NEXT_STEP_FILE)
    with pytest.raises(ValueError, match="takes no keys and values"):
        OnnxSeq2Seq.open(tmp_path / "swapped", 1)
    shutil.copytree(folder, tmp_path / "poor")
    graph = onnx.load(str(folder / FIRST_STEP_FILE))
    kept = [output for output in graph.graph.output if output.name != "present.1.encoder.value"]
    del graph.graph.output[:]
    graph.graph.output.extend(kept)
    onnx.save(graph, str(tmp_path / "poor" / FIRST_STEP_FILE))
    with pytest.raises(ValueError, match=r"does not give present\.1\.encoder\.value"):
        OnnxSeq2Seq.open(tmp_path / "poor", 1)
    shutil.copy(folder / NEXT_STEP_FILE, tmp_path / "poor" / FIRST_STEP_FILE)
    with pytest.raises(ValueError, match="wants the inputs"):
        OnnxSeq2Seq.open(tmp_path / "poor", 1)
