"""What a process that serves does not carry: load tests, drawing, training, and the servers of others."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from punctual import EXTRAS

ROOT = Path(__file__).resolve().parents[2]
SERVE = ("punctual", "deployments.serve.command", "deployments.serve.serving", "exporters.cli", "exporters.prepare")
"""What `punctual serve` imports in its own process. Ray is imported later: it brings FastAPI and aiohttp by itself."""

LABORATORY = {"loadtests", "matplotlib", "scipy", "torch", "transformers", "optimum", "fastapi", "uvicorn", "aiohttp"}
IMPORT_AND_TELL = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted(sys.modules)))
"""


def imported_by(*modules: str) -> set[str]:
    """The names at the top of all that a fresh interpreter has imported after these."""
    command = [sys.executable, "-c", IMPORT_AND_TELL, *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_serving_imports_nothing_of_the_laboratory() -> None:
    """`punctual serve` starts without load tests, plots, solvers and trainers, installed or not."""
    imported = imported_by(*SERVE)
    assert {"gateway", "deployments", "exporters"} <= imported
    assert not imported & (LABORATORY | {"ray"})


@pytest.mark.parametrize("part", ["deployments.serve.applications", "deployments.serve.graph"])
def test_what_ray_starts_imports_nothing_of_the_laboratory(part: str) -> None:
    """An ingress or a replica imports no load tests, plots, solvers and trainers; what Ray brings is Ray's affair."""
    of_ray = imported_by("ray.serve")
    assert not (imported_by(part) - of_ray) & LABORATORY
    assert not of_ray & {"matplotlib", "scipy", "torch", "transformers", "optimum"}


def test_serving_declares_nothing_of_the_laboratory() -> None:
    """A plain `pip install punctual` asks for no library of the laboratory."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    plain = {Requirement(line).name for line in project["dependencies"]}
    assert "ray" in plain
    assert not plain & LABORATORY


def test_a_command_names_the_extra_that_it_lacks() -> None:
    """Where the solver is not installed, `punctual simulate` says how to get it, and not by a traceback."""
    lacking = "import sys; sys.modules['scipy'] = None; import punctual; sys.exit(punctual.main(sys.argv[1:]))"
    command = [sys.executable, "-c", lacking, "simulate", "example-profile"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: scipy is not installed: pip install 'punctual[simulate]'\n"


@pytest.mark.parametrize("library", EXTRAS)
def test_a_missing_library_comes_with_the_extra_that_is_named(library: str) -> None:
    """What the command says to install has what is missing."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    brought = {canonicalize_name(Requirement(line).name) for line in extras[EXTRAS[library]]}
    assert canonicalize_name(library) in brought
