"""A decoding race over real libraries, on a checkpoint so small that its figures mean nothing and its laws hold."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from transformers import AutoTokenizer, BartConfig

from exporters.errors import SourceRefused
from exporters.random_seq2seq import END_ID, SPECIAL, write_random_checkpoint
from loadtests.decoding_engines import BASELINE, DecodingEngine, running
from loadtests.decoding_figures import BEAMS, GREEDY, token
from loadtests.decoding_folders import prepare
from loadtests.decoding_race import DecodingSettings, decoding_race
from loadtests.decoding_report import markdown
from loadtests.errors import EngineFailed
from loadtests.peers.decoding_port import DecodingJob

pytestmark = pytest.mark.export
TINY = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 64,
}


def tiny(vocabulary: int = 22100) -> BartConfig:
    """BART's architecture with almost nothing in it."""
    return BartConfig(vocab_size=vocabulary, decoder_start_token_id=END_ID, **TINY, **SPECIAL)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-bart"
    write_random_checkpoint(tiny(), folder)
    return folder


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the graphs of every race here are kept."""
    return tmp_path_factory.mktemp("work")


def test_two_engines_race_and_their_graphs_are_kept(checkpoint: Path, work: Path) -> None:
    """Both write as many tokens as asked in every turn, and nothing is exported a second time."""
    settings = DecodingSettings(rounds=1, tokens=12, input_tokens=40, threads=1, engines=(BASELINE, "torch-bf16"))
    said = io.StringIO()
    report = decoding_race(str(checkpoint), work, settings, Console(file=said))
    assert list(report.loaded) == [BASELINE, "torch-bf16"]
    assert report.candidates == ("torch-bf16",) and report.input_tokens == 40
    assert {(turn.round, turn.beams, turn.engine) for turn in report.turns.taken} == {
        (number, beams, name) for number in (0, 1) for beams in (GREEDY, BEAMS) for name in report.loaded
    }
    assert all(turn.tokens == 12 and turn.resident_bytes > 10**7 for turn in report.turns.taken)
    if not report.turns.spoilt():
        assert report.turns.spread("torch-bf16", BEAMS, token) is not None
    assert "torch-bf16" in markdown([report])
    assert "int8 graphs" in said.getvalue()
    again = io.StringIO()
    kept = prepare(str(checkpoint), ["int8"], work, 1, Console(file=again))
    assert {"fp32", "int8"} <= set(kept.by_kind) and not again.getvalue()


def test_an_engine_may_be_loaded_anew_for_every_turn(checkpoint: Path, work: Path) -> None:
    """What is measured is the same; the report says how."""
    settings = DecodingSettings(rounds=1, tokens=4, input_tokens=40, threads=1, apart=True, engines=(BASELINE,))
    report = decoding_race(str(checkpoint), work, settings, Console(file=io.StringIO()))
    assert len(report.turns.taken) == 4 and list(report.loaded) == [BASELINE]
    assert "loaded anew for every turn" in markdown([report])


def test_an_engine_that_cannot_load_says_why(tmp_path: Path) -> None:
    """Its process's last words are the operator's to read."""
    engine = DecodingEngine(BASELINE, "onnxruntime", "int8")
    job = DecodingJob(engine.name, str(tmp_path), 1, (5, 3), 3, 3)
    with (
        pytest.raises(EngineFailed, match=r"onnxruntime-int8 ended with 1: (.|\n)*encoder_model"),
        running(engine, job),
    ):
        pass


def test_random_checkpoints_are_equal_for_equal_seeds_and_have_a_tokenizer(checkpoint: Path, tmp_path: Path) -> None:
    """Byte for byte; AutoTokenizer finds the fast tokenizer, its specials where the configuration has them."""
    write_random_checkpoint(tiny(), tmp_path / "same")
    write_random_checkpoint(tiny(), tmp_path / "other", seed=21)
    weights = "model.safetensors"
    assert (tmp_path / "same" / weights).read_bytes() == (checkpoint / weights).read_bytes()
    assert (tmp_path / "other" / weights).read_bytes() != (checkpoint / weights).read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    assert tokenizer.is_fast and tokenizer.model_max_length == 64
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 2, END_ID)
    with pytest.raises(SourceRefused, match="does not hold the tokenizer's 22000 entries"):
        write_random_checkpoint(tiny(vocabulary=100), tmp_path / "small")
