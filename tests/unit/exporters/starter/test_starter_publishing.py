"""Laws of what every recipe writes: model cards and manifests from one code, and the table of published digests."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from exporters.sources.starter_files import DIGESTS, HERE
from exporters.starter import command
from exporters.starter.adapter import card as adapter
from exporters.starter.entities import card as entities
from exporters.starter.extractive import card as extractive
from exporters.starter.packages import CannotBuild
from exporters.starter.publishing import read_manifest, seal, write_digests
from exporters.starter.sentiment import card as sentiment
from exporters.starter.software import card as software
from exporters.starter.spans import card as spans

RECIPES: dict[str, tuple[type[Any], Any]] = {
    "minilm-sentiment": (sentiment.Manifest, sentiment.card),
    "distilbert-sentiment": (sentiment.Manifest, sentiment.card),
    "mpnet-sentiment": (adapter.AdapterManifest, adapter.card),
    "minilm-entities": (entities.EntitiesCard, entities.card),
    "minilm-spans": (spans.SpansCard, spans.card),
    "extract-realtime": (extractive.ExtractiveCheckpoint, extractive.card),
    "extract-quality": (extractive.ExtractiveCheckpoint, extractive.card),
    "bart-software": (software.SummariserManifest, software.card),
}


@pytest.mark.parametrize("name", RECIPES)
def test_card_and_manifest_are_written_again_to_the_byte(name: str, tmp_path: Path) -> None:
    """A shipped card and manifest are rewritten to the byte from the manifest's figures."""
    kind, card = RECIPES[name]
    shipped, again = HERE / "checkpoints" / name, tmp_path / name
    manifest = read_manifest(shipped, kind)
    shutil.copytree(shipped, again, ignore=shutil.ignore_patterns("README.md", "manifest.json"))
    assert seal(again, manifest.model_copy(update={"files": {}}), card(manifest)) == manifest
    for file in ("README.md", "manifest.json"):
        assert (again / file).read_bytes() == (shipped / file).read_bytes()


def test_the_table_of_digests_is_written_again_to_the_byte(tmp_path: Path) -> None:
    """The shipped table of digests is rewritten to the byte from the shipped checkpoints."""
    shutil.copytree(HERE / "checkpoints", tmp_path / "checkpoints")
    write_digests(tmp_path)
    assert (tmp_path / DIGESTS.name).read_bytes() == DIGESTS.read_bytes()


def test_a_program_builds_where_it_is_told_and_prints_what_came_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A build exits with status 0, a table and digests; without training data, with status 1 and one line."""
    asked = []

    def build(out: Path, cache: Path, ticker: command.Ticker, smoke: bool) -> str:
        ticker("a run")(1, 2, "half")
        asked.append((out, cache, smoke))
        (out / "checkpoints").mkdir()
        return "made"

    def table(made: str) -> Table:
        return Table(made)

    options = ["--out", str(tmp_path), "--cache", str(tmp_path / "cache"), "--smoke"]
    assert command.run("exporters.starter", None, build, table, options) == 0
    assert asked == [(tmp_path, tmp_path / "cache", True)] and (tmp_path / DIGESTS.name).exists()
    assert "made" in capsys.readouterr().out

    def broken(out: Path, cache: Path, ticker: command.Ticker, smoke: bool) -> str:
        raise CannotBuild("no texts here")

    assert command.run("exporters.starter", None, broken, table, options) == 1
    assert "no texts here" in capsys.readouterr().out


def test_a_smoke_run_never_goes_where_the_shipped_checkpoints_are(capsys: pytest.CaptureFixture[str]) -> None:
    """A smoke run never writes to the shipped folder, where it would replace trained weights."""
    with pytest.raises(SystemExit) as ended:
        command.run("exporters.starter", None, lambda *_: "never", Table, ["--smoke"])
    assert ended.value.code == 2 and "--smoke would overwrite the shipped checkpoints" in capsys.readouterr().err
