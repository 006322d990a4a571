"""The load tests' commands: help that imports no benchmark, checked options, and an exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from exporters.options import lazy_group
from loadtests.cli import BENCHMARKS, COMMANDS, bench

ROOT = Path(__file__).parents[3]


def test_help_names_every_benchmark_and_imports_none() -> None:
    """Help names every benchmark and imports none, so that it answers at once."""
    program = (
        "import sys; from typer.testing import CliRunner; from loadtests.cli import bench\n"
        "told = CliRunner().invoke(bench, ['--help'])\n"
        "print(told.stdout); heavy = {'numpy', 'ray', 'aiohttp', 'loadtests.bench', 'gateway'} & set(sys.modules)\n"
        "sys.exit(told.exit_code or (repr(heavy) if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_says_the_same_of_itself_as_the_list_of_all(name: str) -> None:
    """A benchmark's own help begins with its sentence in the list of all."""
    command = import_module(f"loadtests.bench.{name}").command
    assert command.__doc__ == BENCHMARKS[name]
    told = CliRunner().invoke(bench, [name.replace("_", "-"), "--help"])
    assert told.exit_code == 0 and "--json" in told.stdout


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["decision", "--decisions", "1"], "--decisions"),
        (["load", "--rate", "0", "--seconds", "1"], "positive number"),
        (["load", "--rate", "5"], "--seconds"),
        (["speed", "--connections", "1"], "--connections"),
        (["observed", "--seconds", "inf"], "positive number"),
        (["scrape", "--other"], "--other"),
        (["nothing"], "nothing"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_is_measured(arguments: list[str], fault: str) -> None:
    """A wrong call is refused with status 2 before any measurement, and the option is named."""
    told = CliRunner().invoke(bench, arguments)
    assert told.exit_code == 2 and fault in told.stderr


def test_a_benchmark_prints_its_tables_and_writes_its_file(tmp_path: Path) -> None:
    """A benchmark prints tables and writes its file; its status is 1 exactly if a target was missed."""
    file = tmp_path / "decision.json"
    told = CliRunner().invoke(bench, ["decision", "--rounds", "1", "--decisions", "2", "--json", str(file)])
    document = json.loads(file.read_bytes())
    assert told.exit_code == (0 if all(one["met"] for one in document["verdicts"]) else 1)
    assert len(document["timings"]) == 16 and "loaded, at a price" in told.stdout


def test_a_lazy_command_may_be_a_group_of_its_own() -> None:
    """A command that is imported on demand may be a group, as `bench` is."""
    root = typer.Typer(cls=lazy_group({"bench": ("loadtests.cli:bench", "Measures.")}))
    root.callback()(lambda: None)
    told = CliRunner().invoke(root, ["bench", "--help"])
    assert told.exit_code == 0 and "speed" in told.stdout
    assert "decision" in CliRunner().invoke(root, ["bench", "decision", "--help"]).stdout
