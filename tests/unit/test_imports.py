"""What a serving process does not import: load tests, plots, solvers, trainers and other servers."""

from __future__ import annotations

import json
import os
import socket
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


def modules_after(*modules: str) -> set[str]:
    """All that a fresh interpreter has imported after these modules."""
    command = [sys.executable, "-c", IMPORT_AND_TELL, *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def imported_by(*modules: str) -> set[str]:
    """The top-level names of these."""
    return {name.partition(".")[0] for name in modules_after(*modules)}


def test_serving_imports_nothing_of_the_laboratory() -> None:
    """`punctual serve` imports no load tests, plots, solvers or trainers, even if they are installed."""
    imported = imported_by(*SERVE)
    assert {"gateway", "deployments", "exporters"} <= imported
    assert not imported & (LABORATORY | {"ray"})


@pytest.mark.parametrize("part", ["ingress", "checkpoint", "graph"])
def test_what_ray_starts_imports_nothing_of_the_laboratory(part: str) -> None:
    """Ingresses and replicas import no load tests, plots, solvers or trainers beyond what Ray itself imports."""
    of_ray = imported_by("ray.serve")
    assert not (imported_by(f"deployments.serve.{part}") - of_ray) & LABORATORY
    assert not of_ray & {"matplotlib", "scipy", "torch", "transformers", "optimum"}


def test_a_replica_carries_no_ingress() -> None:
    """The process of a replica imports neither the HTTP edge nor the scheduler: each checkpoint has such a process."""
    of_ingress = ("gateway.api", "gateway.router", "gateway.service", "gateway.scheduling.scheduler")
    assert not [name for name in modules_after("deployments.serve.checkpoint") if name.startswith(of_ingress)]


def test_serving_declares_nothing_of_the_laboratory() -> None:
    """A plain `pip install punctual` installs no library for load tests, plots or training."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    plain = {Requirement(line).name for line in project["dependencies"]}
    assert "ray" in plain
    assert not plain & LABORATORY


PLAIN = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))
import punctual
sys.exit(punctual.main(sys.argv[2:]))
"""
"""Runs a command without some libraries, as after a plain `pip install punctual`."""


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (("simulate", "example-profile"), "simulate"),
        (("load", "live-classify", "--url", "http://127.0.0.1:9"), "bench"),
        (("bench", "speed"), "export"),
        (("export", "OWNER/NAME", "--revision", "a" * 40), "export"),
        (("prepare",), "export"),
        (("explain", "--text", "a good film"), "export"),
        (("serve", "--port", "PORT"), "export"),
        (("advise", "--task", "classify"), None),
        (("catalog", "check"), None),
    ],
    ids=lambda given: given[0] if isinstance(given, tuple) else "",
)
def test_a_plain_install_names_the_extra_that_it_lacks(
    command: tuple[str, ...], extra: str | None, tmp_path: Path
) -> None:
    """With the libraries of no extra, a command works, or ends with one sentence that names the extra to install."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    arguments = [sys.executable, "-c", PLAIN, ",".join(EXTRAS), *(port if one == "PORT" else one for one in command)]
    environ = {**os.environ, "PUNCTUAL_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(arguments, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    if extra is None:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert done.stderr.endswith(f"pip install 'punctual[{extra}]'\n") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("library", EXTRAS)
def test_a_missing_library_comes_with_the_extra_that_is_named(library: str) -> None:
    """The extra that the command names contains the missing library."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    brought = {canonicalize_name(Requirement(line).name) for line in extras[EXTRAS[library]]}
    assert canonicalize_name(library) in brought
