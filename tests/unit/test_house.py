"""The laws of the house that no tool checks for us: how modules are named, and what they never do."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("gateway", "deployments", "exporters", "loadtests", "helm")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")) + list(ROOT.glob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc"}
BROAD_HANDLERS = 2
OWNED = {"ray", "ctranslate2", "onnxruntime", "openvino", "optimum", "prometheus_client", "torch", "transformers"}


@cache
def tree(path: Path) -> ast.Module:
    """The parsed module."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def label(path: Path) -> str:
    """The path as a test's name shows it."""
    return str(path.relative_to(ROOT))


def is_broad(handler: ast.ExceptHandler) -> bool:
    """Whether a handler takes whatever comes: bare, `Exception` or `BaseException`."""
    if handler.type is None:
        return True
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException") for kind in caught)


def reads_wall_clock(node: ast.AST) -> bool:
    """Whether a node is `time.time`, or imports `time` from it."""
    if isinstance(node, ast.ImportFrom) and node.module == "time":
        return any(alias.name in ("time", "time_ns") for alias in node.names)
    if isinstance(node, ast.Attribute) and node.attr in ("time", "time_ns"):
        return isinstance(node.value, ast.Name) and node.value.id == "time"
    return False


def test_the_house_is_found() -> None:
    """These laws hold for the modules there are, not for an empty list."""
    assert {label(path).split("/")[0] for path in MODULES} >= set(PACKAGES)


def test_a_module_is_named_for_a_noun_or_verb_of_the_field() -> None:
    """No module is called `utils`, `helpers`, `common` or the like: such a name holds anything."""
    named = [(path, {path.stem, *path.relative_to(ROOT).parent.parts}) for path in MODULES + TESTS]
    assert [label(path) for path, names in named if NAMES_THAT_SAY_NOTHING & names] == []


def test_durations_come_from_a_monotonic_clock() -> None:
    """`time.time` is never used: it jumps when the clock is set. A date for people comes from `datetime`."""
    assert [label(path) for path in MODULES if any(map(reads_wall_clock, ast.walk(tree(path))))] == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.py")), ids=label)
def test_the_command_leaves_libraries_to_their_owners(path: Path) -> None:
    """The command imports none of the libraries that a package owns: import-linter cannot see a lone module."""
    nodes = list(ast.walk(tree(path)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    assert not OWNED & {name.split(".")[0] for name in names}


def test_any_exception_is_caught_at_two_places_at_most() -> None:
    """Only the batch boundary of a replica and that to observers may; the last resort is Starlette's handler."""
    broad = [
        f"{label(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler) and is_broad(node)
    ]
    assert len(broad) <= BROAD_HANDLERS, broad
