"""Programs that nobody here wrote, against one gateway: a generator of requests, linters, and clients.

They come from the registries of npm and PyPI, locked by version and hash, into folders that are thrown away.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SEED, EXAMPLES = 7, 20
"""Of schemathesis: the seed, and the most requests of one kind to an operation."""

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method,missing_required_header"
)
"""Those that hold here. The contract reads generously, and knows rules that a schema does not say: so neither must all
that breaks the document be refused, nor all that fits be answered."""


def done(command: Sequence[str | Path], folder: Path) -> str:
    """Run a program to its end in a folder, and return what it says; fail with that if the program does."""
    run = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=os.environ | {"REDOCLY_TELEMETRY": "off", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-20_000:]
    return run.stdout


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs of npm's registry, and the document to lint."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed: Debian has it as npm, and https://nodejs.org")
    folder = shutil.copytree(HERE / "node", tmp_path_factory.mktemp("programs") / "node")
    done(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)
    return folder


@pytest.fixture(scope="module")
def document(programs: Path, url: str) -> Path:
    """The OpenAPI document that the gateway serves."""
    path = programs / "openapi.json"
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=60) as answer:
        path.write_bytes(answer.read())
    return path


@pytest.fixture(scope="module", params=["oldest", "newest"])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the oldest or the newest clients, and nothing of this project."""
    folder = tmp_path_factory.mktemp(request.param)
    done([sys.executable, "-m", "venv", folder], ROOT)
    locked = ROOT / "requirements" / f"clients-{request.param}.txt"
    found = folder / "bin" / "python"
    done([found, "-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", locked], ROOT)
    return found


def test_generated_requests_find_no_fault(url: str, tmp_path: Path) -> None:
    """Every answer to thousands of valid and invalid requests is documented as it is sent, and none is a fault."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--seed", str(SEED)]
    phases = ["--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES), "--continue-on-failure"]
    told = done([*command, *phases, "--checks", CHECKS, "--no-color"], tmp_path)
    print(told[told.rindex("SUMMARY") :])


def test_redocly_finds_no_fault_in_the_document(programs: Path, document: Path) -> None:
    """The document passes Redocly's recommended rules, warnings included."""
    rules = ROOT / "docs" / "openapi" / "redocly.yaml"
    told = done(["npx", "redocly", "lint", "--config", rules, "--max-problems", "1000", document], programs)
    assert "warning" not in told.partition("validating")[2]


def test_spectral_finds_no_fault_in_the_document(programs: Path, document: Path) -> None:
    """The document passes Spectral's rules for OpenAPI, warnings included."""
    rules = ROOT / "docs" / "openapi" / "spectral.yaml"
    done(["npx", "spectral", "lint", document, "--ruleset", rules, "--fail-severity", "warn"], programs)


def test_clients_in_javascript_take_their_answers(programs: Path, url: str) -> None:
    """Every call of Hugging Face's and of OpenAI's client is answered as it promises, streamed ones too."""
    print(done(["node", "clients.mjs", url], programs))


def test_clients_in_python_take_their_answers(python: Path, url: str, tmp_path: Path) -> None:
    """Every call of the oldest and of the newest clients is answered as they promise, streamed ones too."""
    print(done([python, HERE / "clients.py", url], tmp_path))
