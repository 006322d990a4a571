"""Serving without the exporters' libraries: variants prepared by another installation are enough."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from deployments.replica.prepared import note_prepared
from exporters.errors import ExportFailed
from exporters.preparing.prepare import prepare
from gateway.catalogs.catalog import load_catalog
from gateway.model.manifest import MANIFEST_NAME


def test_what_was_prepared_is_served_without_the_exporters(tmp_path: Path) -> None:
    """Without torch, each checkpoint is served by the variant noted in the cache."""
    catalog = load_catalog("starter")
    folders = {entry.name: tmp_path / "variants" / entry.name for entry in catalog.checkpoints}
    for entry in catalog.checkpoints:
        folders[entry.name].mkdir(parents=True)
        (folders[entry.name] / MANIFEST_NAME).write_text("{}")
        note_prepared(tmp_path, entry, folders[entry.name])
    assert prepare(catalog, tmp_path, Console(quiet=True), can_make=False) == folders


def test_what_is_missing_names_the_extra_that_makes_it(tmp_path: Path) -> None:
    """Without torch, a checkpoint that is not prepared is an error that names the extra to install."""
    with pytest.raises(ExportFailed, match=r"minilm-sentiment.*punctual\[export\]"):
        prepare(load_catalog("starter"), tmp_path, Console(quiet=True), can_make=False)
