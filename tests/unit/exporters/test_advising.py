"""`punctual advise`: the options' errors, what it takes from the cache, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_variants import write_variant

import punctual
from deployments.replica.prepared import note_prepared
from exporters.advising import offered, shape_of, shape_of_source, this_machine
from gateway.advising.knowledge import knowledge
from gateway.catalogs.catalog import load_catalog

ASK = ("advise", "--task", "classify", "--max-tokens", "12")
CATALOG = """
name: small
checkpoints:
  - name: by-hand
    task: classify
    tier: realtime
    family: BERT
    source: ./by-hand
    quality: {metric: accuracy, value: 80, data_set: by hand, reference: made up}
    licence: none
"""
BERT = {
    "model_type": "bert",
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
}
GPT2 = {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257, "n_positions": 1024}
BART = {
    "is_encoder_decoder": True,
    "d_model": 768,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_ffn_dim": 3072,
    "encoder_attention_heads": 12,
    "vocab_size": 50265,
    "max_position_embeddings": 1024,
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Write a catalog of one checkpoint beside its configuration, with its variant prepared in the folder `cache`."""
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    (tmp_path / "by-hand").mkdir()
    (tmp_path / "by-hand" / "config.json").write_text(json.dumps(BERT))
    (tmp_path / "by-hand" / "model.safetensors").write_bytes(b"")
    (tmp_path / "by-hand" / "tokenizer.json").write_text("{}")
    folder = tmp_path / "cache" / "variants" / "by-hand"
    write_variant(folder)
    (entry,) = load_catalog(tmp_path / "catalog.yaml").checkpoints
    note_prepared(tmp_path / "cache", entry, folder)
    return tmp_path


def advised(small: Path, *options: str) -> list[str]:
    """Return the arguments of a command on that catalog and cache."""
    return [*ASK, "--catalog", str(small / "catalog.yaml"), "--cache", str(small / "cache"), *options]


def test_a_prepared_variant_is_measured_and_sized_by_its_files(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a checkpoint whose variant is in the cache the latency is measured and the memory counts its files."""
    assert punctual.main(advised(small, "--json")) == 0
    advice = json.loads(capsys.readouterr().out)
    found = next(one for one in advice["right"] if one["name"] == "by-hand")
    assert found["status"] == "prepared" and found["latency"]["measured"] and found["parameters"] > 100e6
    held = offered(load_catalog(small / "catalog.yaml"), small / "cache").held["by-hand"]
    assert held.file_bytes is not None and 0 < held.file_bytes < 1e6


def test_a_damaged_variant_counts_as_not_made(small: Path) -> None:
    """A variant whose manifest cannot be read is not at hand, and advice is given without it."""
    (small / "cache" / "variants" / "by-hand" / "manifest.json").write_text("{}")
    assert offered(load_catalog(small / "catalog.yaml"), small / "cache").held == {}
    assert punctual.main(advised(small)) == 0


def test_the_terminal_shows_the_table_and_the_entry(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tables name the checkpoints, mark estimates, and end with the entry of the first that is right."""
    assert punctual.main(advised(small, "--labelled", "10000", "--train", "--memory-gb", "64")) == 0
    out = capsys.readouterr().out
    assert "the guide's questions" in out and "right, best first" in out and "~" in out
    assert "the catalog entry of electra-large" in out and "source: ./electra-large-tuned" in out


def test_nothing_right_is_said(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing is right the command says so and why, and succeeds: that is an answer."""
    assert punctual.main(advised(small, "--budget-ms", "0.001")) == 0
    out = capsys.readouterr().out
    assert "no checkpoint is right" in out and "over the budget of 0.001 ms" in " ".join(out.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "sing"], ("--task", "summarize")),
        (["--budget-ms", "0"], ("--budget-ms", "greater than 0")),
        (["--languages", "english"], ("--languages",)),
        (["--percentile", "20"], ("--percentile", "50")),
        (["--needs", "wings"], ("--needs", "layout")),
        (["--max-tokens", "0"], ("--max-tokens", "1")),
    ],
)
def test_a_wrong_option_is_named_with_its_limit(
    options: list[str], said: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """An option out of range ends with status 2 and a sentence that names it and what it may be."""
    assert punctual.main([*ASK, *options]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in said), error


@pytest.mark.parametrize(
    ("config", "name"),
    [(BERT, "bert-base-uncased"), (GPT2, "gpt2"), (BART, "bart-base")],
    ids=["BERT", "GPT-2", "BART"],
)
def test_a_configuration_has_the_shape_that_is_known(name: str, config: dict[str, Any]) -> None:
    """The shape read from a `config.json` is that of the knowledge, whatever names its fields have."""
    assert shape_of(config) == knowledge().named(name).shape


def test_a_configuration_without_sizes_has_no_shape() -> None:
    """A configuration that lacks a size gives no shape, rather than a guess."""
    assert shape_of({"model_type": "bert"}) is None
    assert shape_of_source("starter:nobody-has-it") is None


@pytest.mark.parametrize("name", ["minilm-sentiment", "distilbert-sentiment", "bart-software", "mpnet-sentiment"])
def test_starters_are_known_by_their_own_configurations(name: str) -> None:
    """What the knowledge says of a starter checkpoint's sizes is what its `config.json` says."""
    read, known = shape_of_source(f"starter:{name}"), knowledge().of_source(f"starter:{name}")
    assert read is not None and known is not None
    sizes = ("layers", "decoder_layers", "width", "inner", "heads", "vocabulary")
    assert [getattr(read, size) for size in sizes] == [getattr(known.shape, size) for size in sizes]


def test_this_machine_is_known() -> None:
    """The processors and the memory of the machine are positive, and whether int8 is fast is known."""
    machine = this_machine()
    assert machine.cores and machine.cores > 0 and machine.dot_product is not None
    assert machine.memory_bytes and machine.memory_bytes > 1e8
