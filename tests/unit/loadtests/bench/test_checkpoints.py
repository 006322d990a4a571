"""The bench of checkpoints: what a name means, what a process measures, and how it is told."""

from __future__ import annotations

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console
from small_variants import write_variant
from typer.testing import CliRunner

from deployments.replica.prepared import note_prepared
from gateway.catalogs.catalog import load_catalog
from loadtests.bench.checkpoints import (
    ENGINE_RUN,
    FORWARD,
    TRAINING,
    Finding,
    Settings,
    Study,
    Subject,
    report_of,
    study,
    subject,
    too_large,
)
from loadtests.bench.measuring.report import present
from loadtests.bench.measuring.runs import VARIANT, Cell, Job, Measured, measured, peak_bytes, perform, reset_peak
from loadtests.cli import bench
from loadtests.errors import EngineFailed, NoRace

BRIEF = Settings((1, 2), (4, 8), seconds=0.02)


@pytest.fixture
def variant(tmp_path: Path) -> Path:
    """Write a small variant."""
    write_variant(tmp_path / "variant")
    return tmp_path / "variant"


def job(folder: Path) -> Job:
    """Return a job of a few small shapes."""
    return Job(VARIANT, str(folder), ENGINE_RUN, BRIEF.batches, BRIEF.lengths, 1, BRIEF.seconds)


def test_every_shape_is_timed_and_weighed(variant: Path) -> None:
    """A job measures each batch with each length, in time and in memory, and tells how far it is."""
    shares: list[float] = []
    found = perform(job(variant), shares.append)
    assert {(one.batch, one.tokens) for one in found.cells} == {(1, 4), (1, 8), (2, 4), (2, 8)}
    assert all(0 < one.p50_s <= one.p95_s for one in found.cells) and found.loaded_bytes > 0
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_a_process_of_its_own_gives_the_result(variant: Path) -> None:
    """The measurement crosses from its process, with the progress before it."""
    shares: list[float] = []
    found = measured(job(variant), shares.append)
    assert len(found.cells) == 4 and shares


def test_a_process_that_fails_is_told_by_the_end_of_its_log(tmp_path: Path) -> None:
    """A checkpoint that cannot be opened is an error that names it and holds what its process said."""
    with pytest.raises(EngineFailed, match=f"(?s){tmp_path}, engine: .*manifest.json"):
        measured(job(tmp_path), lambda share: None)


def test_the_peak_is_read_where_the_system_tells_it(tmp_path: Path) -> None:
    """The peak is the high-water mark of the status file, in bytes; elsewhere it is not known, and nothing fails."""
    status = tmp_path / "status"
    status.write_text("Name: x\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\n")
    assert peak_bytes(status) == 2048 * 1024
    status.write_text("Name: x\n")
    assert peak_bytes(status) is None and peak_bytes(tmp_path / "nowhere") is None
    reset_peak(tmp_path / "nowhere" / "clear_refs")
    reset_peak(tmp_path / "clear_refs")
    assert (tmp_path / "clear_refs").read_text() == "5"


def test_a_name_is_of_a_catalog_a_folder_or_random(variant: Path, tmp_path: Path) -> None:
    """A variant's folder is run by its engine, a checkpoint's by PyTorch, random ones by their shapes."""
    assert subject(str(variant), (), tmp_path) == Subject("variant", variant=variant)
    for name in ("random:electra-small", "random:ELECTRA", "random:electra"):
        found = subject(name, (), tmp_path)
        assert found.random == "electra-small" and found.shape is not None and found.shape.width == 256


def test_a_checkpoint_of_a_catalog_is_its_variant_and_its_weights(variant: Path, tmp_path: Path) -> None:
    """A catalog's checkpoint is run by the engine of its prepared variant, and in PyTorch by its weights."""
    starter = load_catalog("starter")
    entry = starter.by_name("distilbert-sentiment")
    assert entry is not None
    note_prepared(tmp_path, entry, variant)
    found = subject("distilbert-sentiment", (starter,), tmp_path)
    assert found.variant == variant and found.folder is not None and found.shape is not None
    assert next(one.run for one in found.jobs(BRIEF)) == ENGINE_RUN


@pytest.mark.parametrize("name", ["nobody", "random:nobody", "./nowhere", "distilbert-sst2"])
def test_what_is_not_there_is_named_with_what_is(name: str, tmp_path: Path) -> None:
    """A name that means nothing, or nothing on this machine, is refused with what may be named."""
    with pytest.raises(NoRace, match=name.removeprefix("random:").removeprefix("./")):
        subject(name, (load_catalog("starter"), load_catalog("hub")), tmp_path)


def test_lengths_beyond_the_window_are_left_out() -> None:
    """A checkpoint is run on texts that its window holds."""
    found = subject("random:ctrl", (), Path("/nowhere"))
    jobs = list(found.jobs(Settings((1,), (128, 256, 512))))
    assert all(one.lengths == (128, 256) for one in jobs)


def test_a_step_that_memory_cannot_hold_is_left_out() -> None:
    """A step of training is not tried where its estimate is over the free memory, and the sentence says both."""
    large = subject("random:ctrl", (), Path("/nowhere"))
    said = too_large(large, Settings(), 8e9)
    assert said is not None and "8000 MB are free" in said
    assert too_large(large, Settings(), 1e12) is None and too_large(Subject("unknown"), Settings(), 0.0) is None


def a_study() -> Study:
    """Return a study of two kinds of runs, in which training takes 300 MB beyond the weights."""
    shape = subject("random:tinybert-4l", (), Path("/nowhere")).shape
    cells = tuple(
        Cell(batch, tokens, 9, batch * tokens / 1e4, batch * tokens / 8e3, 700_000_000)
        for batch in (1, 2)
        for tokens in (4, 8)
    )
    loaded = Measured(400_000_000, 14_000_000, cells)
    engine = Measured(400_000_000, None, tuple(Cell(c.batch, c.tokens, 9, c.p50_s, c.p95_s, None) for c in cells))
    findings = (Finding("tiny", ENGINE_RUN, shape, engine, 20e6), Finding("tiny", TRAINING, shape, loaded, 56e6))
    return Study("a host", BRIEF, findings, (), 0.5, 3.0)


def test_the_report_tells_time_memory_and_the_formula(tmp_path: Path) -> None:
    """Each kind of run has a table; training says what the formula gives; a busy machine is a caution."""
    report = report_of(a_study())
    engine, training = report.tables
    assert engine.rows[0][3] == "-" and training.rows[0][3] == "356"
    assert "14.0 M parameters" in training.note and "by the formula" in training.note
    assert any("not quiet" in caution for caution in report.cautions)
    out = io.StringIO()
    files = {"json": tmp_path / "a.json", "markdown": tmp_path / "a.md", "plot": tmp_path / "a.svg"}
    assert present(report, Console(file=out, width=200), **files) == 0
    assert json.loads(files["json"].read_bytes())["findings"][1]["run"] == TRAINING
    assert ElementTree.parse(files["plot"]).getroot().tag.endswith("svg")
    assert "tiny, torch training step" in files["markdown"].read_text()


def test_a_study_measures_every_job(variant: Path) -> None:
    """Every job of every subject is measured, and none is made up."""
    found = study([subject(str(variant), (), variant)], BRIEF, Console(file=io.StringIO()))
    assert [(one.checkpoint, one.run) for one in found.findings] == [("variant", ENGINE_RUN)]
    assert FORWARD not in {one.run for one in found.findings}


def test_a_run_that_fails_leaves_the_others(variant: Path, tmp_path: Path) -> None:
    """A subject whose process fails is told with its reason and missed; what was measured of others stays."""
    broken = Subject("broken", variant=tmp_path / "nowhere")
    found = study([broken, subject(str(variant), (), variant)], BRIEF, Console(file=io.StringIO()))
    assert [one.checkpoint for one in found.findings] == ["variant"]
    report = report_of(found)
    assert not report.met and "broken" in report.verdicts[0].sentence and len(report.tables) == 1


def test_a_wrong_option_is_named() -> None:
    """A batch of no text is refused with the option's name, before anything is measured."""
    told = CliRunner().invoke(bench, ["checkpoints", "random:electra", "--batch", "0"])
    assert told.exit_code == 2 and "--batch" in told.stderr
