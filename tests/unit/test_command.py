"""The command's edge: what a wrong call is told, and that every command helps."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import punctual


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["simulate"], "Missing argument 'scenario'"),
        (["load"], "Missing argument 'scenario'"),
        (["serve", "--log-format", "xml"], "'xml' is not one of 'json', 'text'"),
        (["explain"], "one of --text and --file is required"),
        (["explain", "--text", "a", "--file", __file__], "--file: not allowed with --text"),
        (["explain", "--file", "/nowhere/text"], "does not exist"),
        (["nothing"], "No such command 'nothing'"),
    ],
)
def test_a_wrong_call_names_its_fault(arguments: list[str], fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong call ends with status 2 before anything starts, and its message names the option or argument."""
    assert punctual.main(arguments) == 2
    assert fault in capsys.readouterr().err


def test_a_text_that_is_not_utf8_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in another encoding is refused by its name, without a traceback."""
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    assert punctual.main(["explain", "--file", str(tmp_path / "latin")]) == 2
    assert "latin is not UTF-8" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """`punctual --version` prints the installed version and nothing else."""
    assert punctual.main(["--version"]) == 0
    assert capsys.readouterr().out == f"punctual {version('punctual')}\n"


def test_closed_streams_are_no_fault() -> None:
    """A command runs without standard input, output and error, as some supervisors start it."""
    shell = 'exec "$@" <&- >&- 2>&-'
    command = [sys.executable, "-m", "punctual", "catalog", "check", "starter"]
    assert subprocess.run(["/bin/sh", "-c", shell, "sh", *command], check=False).returncode == 0


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", [[], ["serve"], ["catalog"], ["simulate"], ["load"], ["bench"], ["bench", "speed"]])
def test_every_command_helps(command: list[str], flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Both flags print the usage of the command, in one look everywhere."""
    assert punctual.main([*command, flag]) == 0
    assert capsys.readouterr().out.startswith(" ".join(["Usage: punctual", *command]))
