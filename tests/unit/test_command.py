"""The command's edge: what a wrong call is told, and that every command helps."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from small_variants import write_variant

import punctual
from gateway.catalogs.catalog import load_catalog


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


def test_a_catalog_is_checked_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """`catalog check` counts what a catalog has, and `catalog show` lists it."""
    assert punctual.main(["catalog", "check", "starter"]) == 0
    starter = load_catalog("starter")
    said = f"starter: {len(starter.checkpoints)} checkpoints, tasks {', '.join(starter.tasks)}: valid\n"
    assert capsys.readouterr().out == said
    assert punctual.main(["catalog", "show", "starter"]) == 0
    out = capsys.readouterr().out
    assert "minilm-sentiment" in out and "balanced" in out
    assert punctual.main(["catalog", "check", "/nowhere.yaml"]) == 1
    assert "error: /nowhere.yaml" in capsys.readouterr().err


CATALOG = """
name: small
checkpoints:
  - {name: by-hand, task: classify, tier: realtime, family: sum, source: ./by-hand, licence: none,
     quality: {metric: accuracy, value: 80.0, data_set: none, reference: none}}
"""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "chosen: by-hand (only-candidate)"),
        (["--price", "5"], "capacity price: 5 points"),
        (["--parameters", '{"top_k": 1}'], "chosen: by-hand"),
        (["--budget-ms", "0.001", "--strict"], "refused: "),
    ],
)
def test_a_decision_is_explained(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`explain` shows each candidate's forecast, what is chosen and why, or the refusal."""
    write_variant(tmp_path / "variant")
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    monkeypatch.setattr("exporters.preparing.prepare.prepare", lambda *_: {"by-hand": tmp_path / "variant"})
    assert punctual.main(["explain", "--catalog", str(tmp_path / "catalog.yaml"), "--text", "good film", *options]) == 0
    out = capsys.readouterr().out
    assert "by-hand" in out and said in out


def test_a_gateway_that_cannot_start_ends_with_a_sentence(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`serve` with a catalog that is not there ends with status 1 and one sentence, before Ray is started."""
    missing = str(tmp_path / "nowhere.yaml")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert punctual.main(["serve", "--catalog", missing, "--port", str(port), "--traces"]) == 1
    said = capfd.readouterr().err
    assert missing in said and "Traceback" not in said


def test_an_interrupt_and_a_missing_extra_have_their_own_end(capsys: pytest.CaptureFixture[str]) -> None:
    """An interrupted command has status 130; a library of an extra is named with the extra, any other is a fault."""

    def raises(error: BaseException) -> Callable[[], None]:
        def command() -> None:
            raise error

        return command

    assert punctual._status_of(raises(KeyboardInterrupt())) == 130
    assert punctual._status_of(raises(ModuleNotFoundError(name="torch.nn"))) == 1
    assert "torch is not installed: pip install 'punctual[export]'" in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError):
        punctual._status_of(raises(ModuleNotFoundError(name="nobody_knows")))
