"""What is installed is locked: by version, by hash, and for the processors that nobody asked to have CUDA."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("build", "torch", "serve", "export", "bench", "test")
EXTRAS = {
    "serve": {"tracing"},
    "export": {"export", "tracing"},
    "bench": {"bench", "engines", "export", "simulate", "tracing"},
    "test": {"bench", "dashboards", "export", "simulate", "test", "tracing"},
}
"""The extras that a lock is for, beside what serving needs."""

ELSEWHERE = {"torch", "punctual"}
"""Locked in torch.txt, and installed from the checkout."""


def locked(name: str) -> dict[str, str]:
    """The version of each package of a lock."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
    pins = [re.split("==", line.split()[0]) for line in text.splitlines() if line[:1].isalnum()]
    return {canonicalize_name(package): version for package, version in pins}


def wanted(extras: set[str]) -> list[Requirement]:
    """What pyproject.toml asks for by itself and with the extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *(line for one in extras for line in project["optional-dependencies"][one])]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_locked_by_hash(name: str) -> None:
    """No line of a lock names a package without at least one hash of what may be installed."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
    entries = re.findall(r"^[a-z0-9][^\n]*(?:\n +[^\n]*)*", text, re.MULTILINE)
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_has_what_is_asked_for(name: str) -> None:
    """Each dependency of the extras is locked, at a version within its range."""
    versions = locked(name) | locked("torch")
    asked = [one for one in wanted(EXTRAS[name]) if canonicalize_name(one.name) != "punctual"]
    assert [str(one) for one in asked if not one.specifier.contains(versions[canonicalize_name(one.name)])] == []


@pytest.mark.parametrize("name", ["build", "serve", "export"])
def test_what_is_served_is_what_is_tested(name: str) -> None:
    """The tests run on the versions that are served, and on those that make variants."""
    tested = locked("test")
    assert {package: tested.get(package) for package in locked(name)} == locked(name)


@pytest.mark.parametrize("name", EXTRAS)
def test_no_lock_brings_cuda(name: str) -> None:
    """PyTorch has a lock of its own, of wheels for CPUs; no other lock names it, or what runs on GPUs."""
    assert not ELSEWHERE & locked(name).keys()
    assert [package for package in locked(name) if package.startswith(("nvidia-", "cuda-", "triton"))] == []
