"""Laws of a first start with several missing variants: made side by side, measured one after the other."""

from __future__ import annotations

import shutil
from io import StringIO
from pathlib import Path

import psutil
import pytest
from by_hand import entry_of
from rich.console import Console
from small_checkpoints import make_checkpoint

from deployments.engines.host import read_host
from exporters.errors import ExportError
from exporters.export import NOT_MEASURED
from exporters.plan import Settings, VariantPlan
from exporters.preparing.prepare import Missing, make_together, prepare
from exporters.preparing.store import Store
from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.model.manifest import Precision
from gateway.model.tier import Tier
from gateway.tasks import read_manifest

pytestmark = pytest.mark.export

QUICK = Settings(profile_budget_s=0.05)


def entry(name: str, source: Path) -> CatalogEntry:
    """A classifier in fp32."""
    return entry_of(
        name, "classify", Tier.REALTIME, family="DistilBERT", source=str(source), precision=(Precision.FP32,)
    )


def missing(name: str, source: Path, out: Path) -> Missing:
    """That entry as a variant to be made."""
    return Missing(VariantPlan(name, "classify", "DistilBERT", "onnx", Precision.FP32), str(source), None, out / name)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DistilBERT."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


def test_variants_made_side_by_side_are_measured_alone(checkpoint: Path, tmp_path: Path) -> None:
    """Variants made side by side are not measured until the start, which profiles each alone on this host."""
    other = shutil.copytree(checkpoint, tmp_path / "other")
    made = [missing("one", checkpoint, tmp_path), missing("two", other, tmp_path)]
    make_together(made, Store(tmp_path / "store"), QUICK, Console(file=StringIO()))
    assert [read_manifest(one.folder).profile.measured_on for one in made] == [NOT_MEASURED, NOT_MEASURED]
    both = Catalog(name="both", checkpoints=(entry("one", checkpoint), entry("two", other)))
    folders = prepare(both, tmp_path / "cache", Console(file=StringIO()), settings=QUICK)
    assert {read_manifest(folder).profile.measured_on for folder in folders.values()} == {read_host().kind}


def test_a_fault_of_one_ends_the_others(checkpoint: Path, tmp_path: Path) -> None:
    """A fault of one export is the error raised, and no process of the others is left."""
    broken = shutil.copytree(checkpoint, tmp_path / "broken")
    (broken / "config.json").write_text("{}")
    both = [missing("broken", broken, tmp_path), missing("sound", checkpoint, tmp_path)]
    with pytest.raises(ExportError):
        make_together(both, Store(tmp_path / "store"), QUICK, Console(file=StringIO()))
    assert not [child for child in psutil.Process().children() if "exporters.preparing.job" in child.cmdline()]


def test_a_large_checkpoint_is_left_to_be_made_alone(checkpoint: Path, tmp_path: Path) -> None:
    """A large checkpoint is not made side by side with others, since two such exports would not fit in memory."""
    made = [missing("one", checkpoint, tmp_path), missing("two", checkpoint, tmp_path)]
    make_together(made, Store(tmp_path / "store"), QUICK, Console(file=StringIO()), most_bytes=1)
    assert not any(one.folder.exists() for one in made)
