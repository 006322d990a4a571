"""Laws of preparing a catalog: the first start makes missing variants, and later ones only check."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from by_hand import entry_of
from processors import needs_int8
from rich.console import Console
from small_checkpoints import make_checkpoint, make_unquantisable
from typer import Typer
from typer.testing import CliRunner

from deployments.engines.host import read_host
from deployments.replica.variant import open_variant
from exporters.cli import export, export_variant, measure_variant, profile_catalog
from exporters.errors import SourceRefused, VariantRefused
from exporters.plan import Settings
from exporters.preparing.prepare import prepare
from gateway.catalogs.catalog import Catalog
from gateway.model.manifest import MANIFEST_NAME, Precision
from gateway.model.tier import Tier
from gateway.tasks import read_manifest

pytestmark = [pytest.mark.export, pytest.mark.usefixtures("warm")]

ROOT = Path(__file__).parents[3]
QUICK = Settings(profile_budget_s=0.05)
BOTH = (Precision.INT8, Precision.FP32)


def catalog(checkpoint: Path, *precision: Precision) -> Catalog:
    """One checkpoint."""
    entry = entry_of(
        "tiny", "classify", Tier.REALTIME, family="DistilBERT", source=str(checkpoint), precision=precision
    )
    return Catalog(name="test", checkpoints=(entry,))


def prepared(wanted: Catalog, cache: Path) -> tuple[Path, str]:
    """The folder of the catalog's one variant, and the console output."""
    heard = StringIO()
    return prepare(wanted, cache, Console(file=heard, width=200), settings=QUICK)["tiny"], heard.getvalue()


def times(folder: Path) -> dict[str, int]:
    """When each file of a variant was written."""
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DistilBERT."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="module")
def first(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache after a first start."""
    cache = tmp_path_factory.mktemp("cache")
    prepared(catalog(checkpoint, Precision.FP32), cache)
    return cache


@pytest.fixture
def cache(first: Path, tmp_path: Path) -> Path:
    """A copy of that cache that a test may change."""
    return shutil.copytree(first, tmp_path / "cache")


SECOND_START = """
import sys
from pathlib import Path
from rich.console import Console
from exporters.preparing.prepare import prepare
from gateway.catalogs.catalog import Catalog
from deployments.replica.variant import open_variant
document, cache = sys.argv[1:]
folders = prepare(Catalog.model_validate_json(document), Path(cache), Console())
assert not {"torch", "transformers", "optimum", "onnxruntime"} & set(sys.modules), "to look needs no engine"
open_variant(folders["tiny"], 1)
assert not {"torch", "transformers", "optimum", "onnx"} & set(sys.modules), "to serve ONNX needs only its runtime"
"""


def test_a_second_start_makes_nothing_and_imports_no_torch(checkpoint: Path, cache: Path) -> None:
    """A second start makes nothing, and a replica that opens the variant imports ONNX Runtime and no torch."""
    document = catalog(checkpoint, Precision.FP32).model_dump_json()
    folder = next((cache / "variants" / "tiny").glob("onnx-fp32-*"))
    before = times(folder)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", SECOND_START, document, str(cache)], check=True, env=environment)
    assert times(folder) == before


def test_a_variant_profiled_elsewhere_is_profiled_again_and_not_exported(checkpoint: Path, cache: Path) -> None:
    """A variant that was profiled on another host is profiled again, not exported: only its manifest changes."""
    folder = next((cache / "variants" / "tiny").glob("onnx-fp32-*"))
    before = times(folder)
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    document["profile"]["measured_on"] = "another machine"
    (folder / MANIFEST_NAME).write_text(json.dumps(document))
    again, _ = prepared(catalog(checkpoint, Precision.FP32), cache)
    assert again == folder
    assert {name for name, time in times(folder).items() if time != before[name]} == {MANIFEST_NAME}
    assert read_manifest(folder).profile.measured_on == read_host().kind


def test_a_damaged_variant_is_made_anew(checkpoint: Path, cache: Path) -> None:
    """A damaged variant is made anew."""
    folder = next((cache / "variants" / "tiny").glob("onnx-fp32-*"))
    (folder / "model.onnx").write_bytes(b"damaged")
    again, _ = prepared(catalog(checkpoint, Precision.FP32), cache)
    assert again == folder
    open_variant(folder, 1)


@needs_int8
def test_an_int8_under_its_floor_gives_way_to_fp32_and_is_not_tried_twice(checkpoint: Path, tmp_path: Path) -> None:
    """An int8 variant under its floor is replaced by fp32 and not tried again; without fp32 it is an error."""
    unquantisable = tmp_path / "tiny"
    shutil.copytree(checkpoint, unquantisable)
    make_unquantisable(unquantisable)
    cache = tmp_path / "cache"
    folder, heard = prepared(catalog(unquantisable, *BOTH), cache)
    assert folder.name.startswith("onnx-fp32-") and "under the floor" in heard
    before = times(folder)
    again, heard = prepared(catalog(unquantisable, *BOTH), cache)
    assert (again, times(again)) == (folder, before) and "under the floor" in heard
    with pytest.raises(VariantRefused, match="under the floor"):
        prepared(catalog(unquantisable, Precision.INT8), cache)


@needs_int8
def test_the_commands_print_what_came_of_them(checkpoint: Path, tmp_path: Path) -> None:
    """The commands print a variant with its profile, and the texts that differed of a refused one."""
    console = Console(file=StringIO(), width=160, record=True)
    cache = tmp_path / "cache"
    out = tmp_path / "out"
    assert export_variant(str(checkpoint), None, Precision.INT8, out, cache, QUICK, console)
    assert measure_variant(out, console, threads=2, settings=QUICK).profile.threads == 2
    profile_catalog(catalog(checkpoint, Precision.INT8), cache, QUICK, console)
    unquantisable = tmp_path / "tiny"
    shutil.copytree(checkpoint, unquantisable)
    make_unquantisable(unquantisable)
    assert not export_variant(str(unquantisable), None, Precision.INT8, None, cache, QUICK, console)
    shown = console.export_text()
    assert "100.00%" in shown and "64 tokens" in shown and "variant says" in shown
    command = Typer()
    command.command()(export)
    refused = CliRunner().invoke(command, [str(unquantisable), "--cache", str(cache)])
    assert refused.exit_code == 1 and "variant says" in refused.output


OFFLINE = """
from exporters.errors import SourceRefused
from exporters.sources.source import resolve_source
try:
    resolve_source("owner/name", "0123456789abcdef0123456789abcdef01234567")
except SourceRefused as refused:
    print(refused)
"""


def test_a_hub_that_cannot_be_reached_is_one_sentence(tmp_path: Path) -> None:
    """A hub that cannot be reached is reported in one line with the checkpoint and its revision."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    said = subprocess.run(
        [sys.executable, "-c", OFFLINE], check=True, env=environment, capture_output=True, text=True
    ).stdout
    assert said.startswith("owner/name@0123456789abcdef") and said.count("\n") == 1


def test_a_source_that_is_none_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    """A source that does not exist is refused before any child process or folder is made."""
    with pytest.raises(SourceRefused, match="no folder"):
        prepared(catalog(tmp_path / "nowhere", Precision.FP32), tmp_path / "cache")
    assert not (tmp_path / "cache" / "variants").exists()
