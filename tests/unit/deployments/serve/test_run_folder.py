"""The run folder: where it may be, and who owns it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.serve.environment import SOCKET_PATH_BYTES, NoRunFolder, base_of


def test_the_first_usable_folder_is_taken(tmp_path: Path) -> None:
    """A folder that is long, has a space or `#`, or does not exist is passed over for one that can hold sockets."""
    spaced, marked, absent = tmp_path / "a b", tmp_path / "a#b", Path("/nowhere")
    spaced.mkdir()
    marked.mkdir()
    long = tmp_path / ("a" * SOCKET_PATH_BYTES)
    long.mkdir()
    assert base_of([long, spaced, marked, absent, Path("/dev/shm")]) == Path("/dev/shm")


def test_where_no_folder_will_do_each_is_said(tmp_path: Path) -> None:
    """The error names each folder with its fault, and what to set."""
    long = tmp_path / ("a" * SOCKET_PATH_BYTES)
    with pytest.raises(NoRunFolder) as raised:
        base_of([long, Path("/a b"), Path("/nowhere")])
    said = str(raised.value)
    assert f"{long}: its name is longer than 21 characters" in said
    assert "/a b: its name has other characters" in said
    assert "/nowhere: it cannot be written" in said
    assert "TMPDIR" in said
