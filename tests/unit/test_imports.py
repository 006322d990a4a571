"""What a serving process does not import: load tests, plots, solvers, trainers and other servers."""

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
SERVE = (
    "punctual",
    "deployments.serve.command",
    "deployments.serve.serving",
    "exporters.cli",
    "exporters.preparing.prepare",
)
"""What `punctual serve` imports in its own process, before Ray, which brings FastAPI and aiohttp."""

LABORATORY = {"loadtests", "matplotlib", "scipy", "torch", "transformers", "optimum", "fastapi", "uvicorn", "aiohttp"}
IMPORT_AND_TELL = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted(sys.modules)))
"""


def imported_by(*modules: str) -> set[str]:
    """The top-level names that a fresh interpreter has imported after these modules."""
    command = [sys.executable, "-c", IMPORT_AND_TELL, *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_serving_imports_nothing_of_the_laboratory() -> None:
    """`punctual serve` imports no load tests, plots, solvers or trainers, even if they are installed."""
    imported = imported_by(*SERVE)
    assert {"gateway", "deployments", "exporters"} <= imported
    assert not imported & (LABORATORY | {"ray"})


@pytest.mark.parametrize("part", ["deployments.serve.applications", "deployments.serve.graph"])
def test_what_ray_starts_imports_nothing_of_the_laboratory(part: str) -> None:
    """Ingresses and replicas import no load tests, plots, solvers or trainers beyond what Ray itself imports."""
    of_ray = imported_by("ray.serve")
    assert not (imported_by(part) - of_ray) & LABORATORY
    assert not of_ray & {"matplotlib", "scipy", "torch", "transformers", "optimum"}


def test_serving_declares_nothing_of_the_laboratory() -> None:
    """A plain `pip install punctual` installs no library for load tests, plots or training."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    plain = {Requirement(line).name for line in project["dependencies"]}
    assert "ray" in plain
    assert not plain & LABORATORY


def test_a_command_names_the_extra_that_it_lacks() -> None:
    """Without the solver, `punctual simulate` names the extra to install instead of showing a traceback."""
    lacking = "import sys; sys.modules['scipy'] = None; import punctual; sys.exit(punctual.main(sys.argv[1:]))"
    command = [sys.executable, "-c", lacking, "simulate", "example-profile"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: scipy is not installed: pip install 'punctual[simulate]'\n"


@pytest.mark.parametrize("library", EXTRAS)
def test_a_missing_library_comes_with_the_extra_that_is_named(library: str) -> None:
    """The extra that the command names contains the missing library."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    brought = {canonicalize_name(Requirement(line).name) for line in extras[EXTRAS[library]]}
    assert canonicalize_name(library) in brought
