"""The log of engine steps: written by replicas, read back as it was."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from deployments.replica.writing.step_log import NO_LOG, VARIABLE, Entry, FileLog, Step, read_log, step_log_for

ENTRIES = [
    Entry("r-1", (Step(-0.5, -0.25), Step(-0.25, 0.125)), False),
    Entry("line\nbreak\r\u2028 \x00 é", (), True),
    Entry("", (Step(0.5, 1e-9),), False),
]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Every entry of every file is read back in order, as soon as it is written, whatever the request id holds."""
    for at, name in enumerate(("b", "a")):
        log = FileLog(tmp_path / "made" / f"{name}.jsonl")
        for written, entry in enumerate(ENTRIES, 1):
            log.write(entry.request_id, entry.steps, entry.withdrawn)
            assert len(read_log(tmp_path / "made")) == at * len(ENTRIES) + written
    FileLog(tmp_path / "made" / "a.jsonl").write("more", [], False)
    assert read_log(tmp_path / "made") == [*ENTRIES, Entry("more", (), False), *ENTRIES]


def test_it_is_kept_only_where_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are logged only if the environment names a folder."""
    monkeypatch.delenv(VARIABLE, raising=False)
    assert step_log_for("scribe") is NO_LOG
    NO_LOG.write("r-1", [], False)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    step_log_for("scribe").write("r-1", [Step(-1.0, -0.5)], False)
    assert read_log(tmp_path) == [Entry("r-1", (Step(-1.0, -0.5),), False)]
    assert [file.name.startswith("scribe-") for file in tmp_path.iterdir()] == [True]


def test_a_late_step_is_one_that_began_late() -> None:
    """A step is late if it began after the deadline; ending after it does not count."""
    assert Step(0.001, 0.002).late
    assert not Step(0.0, 0.5).late and not Step(-0.1, 0.5).late


def test_a_broken_line_is_told(tmp_path: Path) -> None:
    """A log with a broken line is an error as a whole, and an empty folder has no entries."""
    assert read_log(tmp_path) == []
    (tmp_path / "a.jsonl").write_bytes(b'{"request_id":"r","steps":[[-1,')
    with pytest.raises(msgspec.DecodeError):
        read_log(tmp_path)
