"""A race of decoding engines with real libraries, on a checkpoint so small that only the laws mean something."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import typer
from rich.console import Console
from transformers import AutoTokenizer, BartConfig
from typer.testing import CliRunner

from exporters.errors import SourceRefused
from exporters.random_seq2seq import END_ID, SPECIAL, write_random_checkpoint
from loadtests.bench import engines
from loadtests.bench.decoding.folders import prepare
from loadtests.bench.decoding.process import Job, running
from loadtests.bench.engines import BASELINE, BEAMS, GREEDY, Settings, race, report_of
from loadtests.errors import EngineFailed

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
    """BART's architecture, as small as can be."""
    return BartConfig(vocab_size=vocabulary, decoder_start_token_id=END_ID, **TINY, **SPECIAL)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-bart"
    write_random_checkpoint(tiny(), folder)
    return folder


def test_two_engines_race_and_their_graphs_are_kept(checkpoint: Path, tmp_path: Path) -> None:
    """Every engine writes the requested number of tokens in every run of the race, and no graph is exported twice."""
    app = typer.Typer()
    app.command()(engines.command)
    sizes = ["--rounds", "1", "--tokens", "12", "--input-tokens", "40", "--threads", "1"]
    raced = ["--checkpoint", str(checkpoint), "--engine", BASELINE, "--engine", "torch-bf16"]
    kinds = (("--json", "race.json"), ("--markdown", "race.md"), ("--svg", "race.svg"), ("--work", "work"))
    files = [part for option, name in kinds for part in (option, str(tmp_path / name))]
    done = CliRunner().invoke(app, [*raced, *sizes, *files])
    assert done.exit_code == 0, done.output
    (race,) = json.loads((tmp_path / "race.json").read_text())["races"]
    assert list(race["loaded"]) == [BASELINE, "torch-bf16"] and race["input_tokens"] == 40
    turns = race["turns"]["taken"]
    assert {(turn["slot"]["round"], turn["slot"]["load"], turn["slot"]["contestant"]) for turn in turns} == {
        (number, beams, name) for number in (0, 1) for beams in (GREEDY, BEAMS) for name in race["loaded"]
    }
    assert all(turn["sample"]["tokens"] == 12 and turn["sample"]["resident_bytes"] > 10**7 for turn in turns)
    assert "torch-bf16" in (tmp_path / "race.md").read_text()
    assert "int8 graphs" in done.output
    again = io.StringIO()
    kept = prepare(str(checkpoint), ["int8"], tmp_path / "work", 1, Console(file=again))
    assert {"fp32", "int8"} <= set(kept.by_kind) and not again.getvalue()


def test_an_engine_may_be_loaded_anew_for_every_turn(checkpoint: Path, tmp_path: Path) -> None:
    """An engine may be loaded anew for every run: the measurements stay the same, and the report says so."""
    settings = Settings(rounds=1, tokens=4, input_tokens=40, threads=1, apart=True, engines=(BASELINE,))
    found = race(str(checkpoint), tmp_path, settings, Console(file=io.StringIO()))
    assert len(found.turns.taken) == 4 and list(found.loaded) == [BASELINE]
    assert "each engine reloaded for every turn" in report_of([found]).tables[0].note


def test_an_engine_that_cannot_load_says_why(tmp_path: Path) -> None:
    """An engine that cannot load ends with the last words of its process in the error."""
    with (
        pytest.raises(EngineFailed, match=r"onnxruntime-int8 ended with 1: (.|\n)*encoder_model"),
        running(Job(BASELINE, str(tmp_path), 1, (5, 3), 3, 3)),
    ):
        pass


def test_random_checkpoints_are_equal_for_equal_seeds_and_have_a_tokenizer(checkpoint: Path, tmp_path: Path) -> None:
    """Equal seeds give byte-equal random checkpoints, with a fast tokenizer and its special tokens."""
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
