"""Every installed package is locked by version and hash, and no lock brings CUDA."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("build", "torch", "serve", "export", "bench", "test", "clients-oldest", "clients-newest")
EXTRAS = {
    "serve": {"tracing"},
    "export": {"export", "tracing"},
    "bench": {"bench", "engines", "export", "openvino", "simulate", "tracing"},
    "test": {"bench", "dashboards", "export", "openvino", "simulate", "test", "tracing"},
}
"""The extras that each lock covers, in addition to what serving needs."""

ELSEWHERE = {"torch", "punctual"}
"""PyTorch, which torch.txt locks, and the project, which is installed from the checkout."""


def locked(name: str) -> dict[str, str]:
    """The version of each package in a lock."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
    pins = [re.split("==", line.split()[0]) for line in text.splitlines() if line[:1].isalnum()]
    return {canonicalize_name(package): version for package, version in pins}


def wanted(extras: set[str]) -> list[Requirement]:
    """The requirements in pyproject.toml, with those of these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *(line for one in extras for line in project["optional-dependencies"][one])]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_locked_by_hash(name: str) -> None:
    """Every package in a lock has at least one hash."""
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
    """The tests use the versions with which the project is served, built and exported."""
    tested = locked("test")
    assert {package: tested.get(package) for package in locked(name)} == locked(name)


@pytest.mark.parametrize("name", EXTRAS)
def test_no_lock_brings_cuda(name: str) -> None:
    """No lock but torch.txt names PyTorch, and none names packages for CUDA."""
    assert not ELSEWHERE & locked(name).keys()
    assert [package for package in locked(name) if package.startswith(("nvidia-", "cuda-", "triton"))] == []
