"""Laws of the wheel: it has what serving needs, no recipes or weights, and finds weights where the environment says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STARTER = ROOT / "exporters" / "starter"
BUILT_FROM = ("gateway", "deployments", "exporters", "loadtests")
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built from, so that no build folder is left in the checkout."""
    tree = tmp_path_factory.mktemp("tree")
    for name in BUILT_FROM:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "punctual.py"):
        shutil.copyfile(ROOT / name, tree / name)
    return tree


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of that tree."""
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(tree)], check=True)
    (built,) = out.glob("punctual-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's files and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([*PIP, "install", "--no-deps", "--no-compile", "--target", str(folder), str(wheel)], check=True)
    return folder


def run(installed: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs Python on the installed files, outside the checkout."""
    known = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PUNCTUAL_STARTER")}
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=installed,
        env=known | {"PYTHONPATH": str(installed)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_has_the_packages_and_neither_recipes_nor_weights(wheel: Path) -> None:
    """The wheel has the packages, and of `exporters/starter` only verification texts, their notice and the digests."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {f"{name}/__init__.py" for name in BUILT_FROM} <= set(names) and "exporters/kinds/classifier.py" in names
    assert not [name for name in names if name.endswith((".safetensors", ".pt", ".bin"))]
    assert {name.removeprefix("exporters/starter/") for name in names if name.startswith("exporters/starter/")} == {
        "NOTICE.md",
        "checkpoints.sha256",
        "entities-heldout.jsonl",
        "heldout.jsonl",
        "personal-heldout.jsonl",
        "software-heldout.jsonl",
        "summaries-heldout.jsonl",
    }
    assert {f"{name}/py.typed" for name in BUILT_FROM} <= set(names)
    assert wheel.stat().st_size < 5_000_000


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    """The wheel's metadata hold the README, who made it and under which licence."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith(".dist-info/METADATA")]
        told = message_from_bytes(archive.read(name))
    assert told["Author"] and told["License-Expression"] == "Apache-2.0"
    assert told["Description-Content-Type"] == "text/markdown"
    assert told.get_payload(decode=True) == (ROOT / "README.md").read_bytes()


def test_a_source_distribution_is_small_and_whole(tree: Path, tmp_path: Path) -> None:
    """What a source distribution holds is under 20 MB, and a wheel can be built of it."""
    build = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=tree, check=True, stdout=subprocess.DEVNULL)
    (made,) = tmp_path.glob("punctual-*.tar.gz")
    assert made.stat().st_size < 20_000_000
    command = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(made)]
    subprocess.run(command, check=True)
    assert list(tmp_path.glob("punctual-*.whl"))


def test_a_starter_without_its_weights_is_one_clear_error(installed: Path, tmp_path: Path) -> None:
    """Without its weights a starter export ends with status 1 and says what is missing, where, and how to get it."""
    command = "import sys, punctual; sys.exit(punctual.main(sys.argv[1:]))"
    ended = run(installed, "-c", command, "prepare", "--catalog", "starter", "--cache", str(tmp_path))
    assert ended.returncode == 1, ended.stderr
    said = ended.stderr.strip()
    assert said.startswith("error: starter:minilm-sentiment: its weights are not in ") and str(installed) in said
    assert "set PUNCTUAL_STARTER to its folder exporters/starter/checkpoints" in said and "Traceback" not in said


FOUND = """
import sys
from pathlib import Path
import exporters
from exporters.sources.source import resolve_source
from exporters.sources.texts import labelled_texts, summarised_texts
assert Path(exporters.__file__).is_relative_to(sys.argv[1])
for name in ("minilm-sentiment", "distilbert-sentiment", "extract-realtime", "extract-quality", "bart-software"):
    source = resolve_source(f"starter:{name}")
    print(source.path, len(labelled_texts(source).texts), len(summarised_texts(source).texts))
"""


def test_starter_weights_are_found_where_the_environment_says(installed: Path) -> None:
    """Starter weights are found, with their digests and texts, where the environment says."""
    ended = run(installed, "-c", FOUND, str(installed), PUNCTUAL_STARTER=str(STARTER / "checkpoints"))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(str(STARTER / "checkpoints")) == 5 and " 1896 " in ended.stdout


def test_the_wheel_advises(installed: Path, tmp_path: Path) -> None:
    """An installed `punctual advise` has its knowledge, and advises before anything was made."""
    asked = ("-m", "punctual", "advise", "--task", "classify", "--json", "--cache", str(tmp_path))
    told = run(installed, *asked)
    assert told.returncode == 0 and '"right"' in told.stdout, told.stderr
