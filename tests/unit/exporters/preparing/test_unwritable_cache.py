"""A cache on a disk that nobody can write: served if it is complete, else an error that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from by_hand import entry_of
from rich.console import Console
from small_variants import write_variant

from deployments.engines.host import read_host
from exporters.errors import ExportFailed
from exporters.export import replace_manifest
from exporters.plan import Settings
from exporters.preparing.prepare import Preparer, plans_for, prepare
from exporters.preparing.store import Store
from gateway.catalogs.catalog import Catalog, EngineName
from gateway.model.manifest import Precision
from gateway.model.tier import Tier

HOST = read_host()


class Unwritable(Store):
    """A store that can only be read, as on a read-only disk."""

    @property
    def writable(self) -> bool:
        """No."""
        return False


def catalog_of(source: Path) -> Catalog:
    """A catalog of one checkpoint whose source is this folder."""
    source.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (source / name).write_text("{}")
    entry = entry_of(
        "by-hand",
        "classify",
        Tier.REALTIME,
        family="sum",
        source=str(source),
        engine=EngineName.ONNX,
        precision=(Precision.FP32,),
    )
    return Catalog(name="one", checkpoints=(entry,))


@pytest.mark.parametrize("measured_on", [HOST.kind, "another host"])
def test_a_complete_cache_is_only_read(measured_on: str, tmp_path: Path) -> None:
    """Variants are taken as they are, even those that were profiled elsewhere; no lock and no note is written."""
    catalog = catalog_of(tmp_path / "source")
    store = Unwritable(tmp_path / "cache")
    (entry,) = catalog.checkpoints
    folder = store.folder(plans_for(entry, HOST, False)[0], store.source_sha256(entry.source, None), Settings())
    manifest = write_variant(folder)
    profile = manifest.profile.model_copy(update={"measured_on": measured_on})
    replace_manifest(folder, manifest.model_copy(update={"profile": profile}))
    before = sorted(store.root.rglob("*"))
    folders, absent = Preparer(store, HOST, Settings(), Console(quiet=True), openvino=False).prepare_all(catalog)
    assert folders == {"by-hand": folder}
    assert not absent
    assert sorted(store.root.rglob("*")) == before


def test_what_is_missing_cannot_be_made(tmp_path: Path) -> None:
    """The error names the cache, the checkpoint and the option."""
    catalog = catalog_of(tmp_path / "source")
    preparer = Preparer(Unwritable(tmp_path / "cache"), HOST, Settings(), Console(quiet=True), openvino=False)
    with pytest.raises(ExportFailed, match=r"cache cannot be written.*by-hand.*--cache"):
        preparer.prepare_all(catalog)


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A cache below a file is an error that names it and the option."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportFailed, match=r"file/cache cannot be made: Not a directory.*--cache"):
        prepare(catalog_of(tmp_path / "source"), tmp_path / "file" / "cache", Console(quiet=True), can_make=True)
