"""Laws of a choice among engines at preparation, with the real engines on a tiny checkpoint."""

from __future__ import annotations

import json
import os
from io import StringIO
from pathlib import Path

import pytest
from by_hand import entry_of
from rich.console import Console
from small_checkpoints import make_checkpoint

from deployments.engines.host import read_host
from deployments.replica.classify import open_classifier
from exporters.plan import Settings
from exporters.preparing.prepare import prepare
from gateway.catalogs.catalog import Catalog, EngineName
from gateway.model.manifest import MANIFEST_NAME, ClassifierManifest, Precision
from gateway.model.tier import Tier
from gateway.tasks import read_manifest

pytest.importorskip("openvino", reason="OpenVINO is an extra: pip install 'punctual[openvino]'")

HERE = read_host()
pytestmark = [
    pytest.mark.export,
    pytest.mark.usefixtures("warm"),
    pytest.mark.skipif(HERE.bf16 is None or HERE.dot_product is None, reason="this processor lacks bf16 or int8"),
]
QUICK = Settings(profile_budget_s=0.05, race_budget_s=0.05)
ALL = (Precision.INT8, Precision.FP32, Precision.BF16)


def catalog(checkpoint: Path, engine: EngineName, *precision: Precision) -> Catalog:
    """One checkpoint."""
    entry = entry_of(
        "tiny",
        "classify",
        Tier.REALTIME,
        family="DistilBERT",
        source=str(checkpoint),
        engine=engine,
        precision=precision,
    )
    return Catalog(name="test", checkpoints=(entry,))


def prepared(wanted: Catalog, cache: Path, openvino: bool = True) -> tuple[ClassifierManifest, Path, str]:
    """The manifest and folder of the catalog's one variant, and the console output."""
    heard = StringIO()
    folder = prepare(wanted, cache, Console(file=heard, width=200), settings=QUICK, openvino=openvino)["tiny"]
    manifest = read_manifest(folder)
    assert isinstance(manifest, ClassifierManifest)
    return manifest, folder, heard.getvalue()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DistilBERT."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


def test_all_engines_are_raced_and_one_is_served(checkpoint: Path, tmp_path: Path) -> None:
    """The manifest has what every candidate took, the served one's agreement, and a line says so at every start.

    A second start races nothing. Chosen on another host, the engine is chosen again.
    """
    wanted = catalog(checkpoint, EngineName.AUTO, *ALL)
    manifest, folder, heard = prepared(wanted, tmp_path)
    choice = manifest.choice
    assert choice is not None and choice.measured_on == HERE.kind
    assert [one.variant for one in choice.raced] == ["onnx-int8", "onnx-fp32", "openvino-bf16"]
    assert all(one.mean_s and one.memory_bytes is not None for one in choice.raced)
    served = next(one for one in choice.raced if one.variant == manifest.variant)
    assert served.label_agreement == manifest.verification.label_agreement
    assert f"tiny: {manifest.variant}, " in heard
    assert "engine_choice" in manifest.details()
    open_classifier(folder, 1)
    again, same, heard = prepared(wanted, tmp_path)
    assert (again, same) == (manifest, folder) and f"tiny: {manifest.variant}, " in heard
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    document["choice"]["measured_on"] = document["profile"]["measured_on"] = "another machine"
    (folder / MANIFEST_NAME).write_text(json.dumps(document))
    moved, _, _ = prepared(wanted, tmp_path)
    assert moved.choice is not None and moved.choice.measured_on == HERE.kind


def test_a_named_engine_is_served_without_a_race(checkpoint: Path, tmp_path: Path) -> None:
    """An entry that names OpenVINO gets it: verified in bf16, with golden answers that a replica repeats."""
    manifest, folder, _ = prepared(catalog(checkpoint, EngineName.OPENVINO, *ALL), tmp_path)
    assert manifest.variant == "openvino-bf16" and manifest.choice is None
    assert manifest.cpu_features == (HERE.bf16,) and "openvino" in manifest.made_with
    assert manifest.verification.label_agreement >= 0.995
    assert {"model.onnx", "openvino.xml", "openvino.bin"} <= set(manifest.files)
    assert type(open_classifier(folder, 1).engine).__name__ == "OpenVinoEngine"


def test_without_openvino_nothing_changes(checkpoint: Path, tmp_path: Path) -> None:
    """Without OpenVINO an entry that names no engine has the variant of one that names ONNX Runtime."""
    manifest, folder, _ = prepared(catalog(checkpoint, EngineName.AUTO, *ALL), tmp_path, openvino=False)
    assert manifest.variant == "onnx-int8" and manifest.choice is None
    assert prepared(catalog(checkpoint, EngineName.ONNX, *ALL[:2]), tmp_path)[1] == folder


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("raise ImportError('no such library')", "openvino-bf16 failed: no such library"),
        ("import os; os.abort()", "perhaps by OpenVINO"),
    ],
    ids=["raises", "aborts"],
)
def test_a_broken_openvino_leaves_onnx_runtime(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, said: str
) -> None:
    """Where OpenVINO raises or ends its process as it is loaded, ONNX Runtime is served, and a line says why.

    The next start says it again and tries nothing.
    """
    broken = tmp_path / "broken"
    (broken / "openvino").mkdir(parents=True)
    (broken / "openvino" / "__init__.py").write_text(fault)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(broken), os.environ.get("PYTHONPATH", "")]))
    wanted = catalog(checkpoint, EngineName.AUTO, *ALL)
    manifest, folder, heard = prepared(wanted, tmp_path / "cache")
    assert manifest.engine == "onnx" and said in heard
    before = (folder / MANIFEST_NAME).stat().st_mtime_ns
    _, same, heard = prepared(wanted, tmp_path / "cache")
    assert same == folder and said in heard and (folder / MANIFEST_NAME).stat().st_mtime_ns == before
