"""Laws of the registry of kinds: what is exported can be opened, and looking up a kind does not import torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_variants import write_variant

from deployments.engines.host import Host
from exporters.cli import plan_for
from exporters.errors import ExportFailed, SourceRefused
from exporters.export import check_plan, export
from exporters.kinds import KINDS, Kind, kind_of
from exporters.plan import Step, VariantPlan, Workbench
from exporters.sources.source import resolve_source
from gateway.model.manifest import ClassifierManifest, Precision
from gateway.tasks import read_manifest, tasks_of

ROOT = Path(__file__).parents[3]
HOST = Host("new", 2, frozenset({"avx512_vnni"}))
PLAIN = Host("old", 2, frozenset())


def test_a_variant_of_every_kind_can_be_opened() -> None:
    """Replicas can open exactly the kinds that are exported, each for its tasks."""
    assert all(tasks_of(name)[0] == kind.task for name, kind in KINDS.items())
    assert all(kind.name == name for name, kind in KINDS.items())


@pytest.mark.parametrize("name", KINDS)
def test_a_plan_must_fit_the_kind(name: str) -> None:
    """A variant must suit its kind's task, its engine and the host: the torch engine runs fp32 only."""
    kind = KINDS[name]

    def plan(task: str, engine: str, precision: Precision) -> VariantPlan:
        return VariantPlan("x", task, "family", engine, precision)

    check_plan(plan(kind.task, "onnx", Precision.INT8), kind, "here", HOST)
    with pytest.raises(SourceRefused, match=f"here: is {kind.described}, which serves the tasks? '{kind.task}'"):
        check_plan(plan("other", "onnx", Precision.FP32), kind, "here", HOST)
    with pytest.raises(ExportFailed, match=f"the abacus engine runs nothing only, and this is {kind.described}"):
        check_plan(plan(kind.task, "abacus", Precision.FP32), kind, "here", HOST)
    with pytest.raises(ExportFailed, match="int8 needs a processor with one of avx512_vnni"):
        check_plan(plan(kind.task, "onnx", Precision.INT8), kind, "here", PLAIN)
    with pytest.raises(ExportFailed, match=r"torch engine runs (fp32|classifiers, answerers, taggers) only"):
        check_plan(plan(kind.task, "torch", Precision.INT8), kind, "here", HOST)


@pytest.mark.export
def test_a_new_kind_takes_an_entry_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new kind that is registered by name is recognised, exported and signed, and its task is checked."""
    checkpoint = tmp_path / "echo"
    checkpoint.mkdir()
    for name, content in {
        "config.json": "{}",
        "tokenizer.json": "{}",
        "model.safetensors": "",
        "echo.json": "{}",
    }.items():
        (checkpoint / name).write_text(content)
    made = write_variant(tmp_path / "by-hand")

    def make(bench: Workbench) -> ClassifierManifest:
        shutil.copytree(tmp_path / "by-hand", bench.folder, dirs_exist_ok=True)
        bench.advance(Step.PROFILING)(1.0)
        return made

    echo: Kind[ClassifierManifest, None] = Kind(
        name="echo",
        described="an echo",
        task="classify",
        engines=("onnx",),
        recognises=lambda path, config: (path / "echo.json").exists(),
        make=make,
        profile=lambda opened, threads, budget_s, advance: made,
        agreement=lambda manifest: {},
        profiles=lambda manifest: (),
    )
    monkeypatch.setitem(KINDS, "echo", echo)
    assert kind_of(checkpoint, "here") is echo
    planned, source = plan_for(str(checkpoint), None, Precision.FP32), resolve_source(str(checkpoint))
    told: list[Step] = []
    assert export(planned, source, tmp_path / "out", lambda step, share: told.append(step)) == made
    assert read_manifest(tmp_path / "out") == made and told == [Step.LOADING, Step.PROFILING]
    (checkpoint / "echo.json").unlink()
    assert kind_of(checkpoint, "here") is KINDS["classifier"]


IMPORTED = """
import sys
import exporters.cli, exporters.export
heavy = {"torch", "transformers", "optimum", "onnx", "onnxruntime", "rouge_score", "huggingface_hub"} & set(sys.modules)
assert not heavy, heavy
"""


def test_the_registry_imports_no_library_of_an_export() -> None:
    """Only an export imports torch; commands that look at kinds do not."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", IMPORTED], check=True, env=environment)


@pytest.mark.parametrize(
    ("family", "task", "kind"),
    [
        ("t5", None, "seq2seq"),
        ("t5", "summarize", "seq2seq"),
        ("t5", "translate", "translator"),
        ("mbart", "translate", "translator"),
        ("marian", None, "translator"),
        ("marian", "summarize", "translator"),
        ("m2m_100", None, "translator"),
    ],
)
def test_the_task_decides_what_an_encoder_decoder_is_for(
    family: str, task: str | None, kind: str, tmp_path: Path
) -> None:
    """Most encoder-decoders summarise unless their entry says that they translate; some can only translate."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family, "is_encoder_decoder": True}))
    assert kind_of(tmp_path, "here", task).name == kind
