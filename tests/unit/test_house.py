"""Laws of the code's layout that no linter checks: module names, and which module may know what."""

from __future__ import annotations

import ast
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import punctual
from gateway.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("gateway", "deployments", "exporters", "loadtests", "helm")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")) + list(ROOT.glob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc"}
BROAD_HANDLERS = 2
MAY_INTERRUPT = {"told.put", "sys.exit"}
OWNED = {"ray", "ctranslate2", "onnxruntime", "openvino", "optimum", "prometheus_client", "torch", "transformers"}
ASK_ANY_TASK = ("gateway", "deployments", "exporters")
UNITS = {"tokens", "answer"}
"""Names of tasks that are words for something else too; modules that mean the task would write its path."""
KNOW_THEIR_TASK = ("gateway/tasks/", "deployments/replica/", "exporters/kinds/", "exporters/starter/")


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All syntax nodes of a module."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))))


def label(path: Path) -> str:
    """The path relative to the repository."""
    return path.relative_to(ROOT).as_posix()


def libraries(path: Path) -> set[str]:
    """The top-level names of all imports of a module."""
    names = {alias.name for node in nodes(path) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes(path) if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names}


def is_broad(handler: ast.ExceptHandler) -> bool:
    """Whether a handler catches every exception: bare, `Exception` or `BaseException`."""
    if handler.type is None:
        return True
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException") for kind in caught)


def test_the_house_is_found() -> None:
    """The modules that these laws check are found in every package."""
    assert {label(path).split("/")[0] for path in MODULES} >= set(PACKAGES)


def test_a_module_is_named_for_a_noun_or_verb_of_the_field() -> None:
    """No module is called `utils`, `helpers`, `common` or the like: such a name holds anything."""
    named = [(path, {path.stem, *path.relative_to(ROOT).parent.parts}) for path in MODULES + TESTS]
    assert [label(path) for path, names in named if NAMES_THAT_SAY_NOTHING & names] == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.py")), ids=label)
def test_the_command_leaves_libraries_to_their_owners(path: Path) -> None:
    """The top-level command imports no library that a package owns; import-linter cannot check a lone module."""
    assert not OWNED & libraries(path)


def test_only_what_serves_imports_ray() -> None:
    """Only deployments/serve imports Ray, and a peer that is raced: the rest runs and is tested without a cluster."""
    importing = [label(path) for path in MODULES if "ray" in libraries(path)]
    assert importing
    allowed = ("deployments/serve/", "loadtests/bench/peers/ray_serve_server.py")
    assert [path for path in importing if not path.startswith(allowed)] == []


def test_only_the_modules_of_a_task_name_it() -> None:
    """Only a task's own modules name it; all others ask the registry."""
    names = {spelled for task in TASKS for spelled in (task, f"/{task}")} - UNITS
    naming = [
        f"{label(path)}:{node.lineno}"
        for path in MODULES
        for node in nodes(path)
        if isinstance(node, ast.Constant) and node.value in names
        if label(path).startswith(ASK_ANY_TASK) and not label(path).startswith(KNOW_THEIR_TASK)
    ]
    assert naming == []


def test_any_exception_is_caught_at_two_places_at_most() -> None:
    """Only two places catch every exception: the batch boundary of a replica, and `gateway/model/faults.py`."""
    broad = [
        f"{label(path)}:{node.lineno}"
        for path in MODULES
        for node in nodes(path)
        if isinstance(node, ast.ExceptHandler) and is_broad(node)
    ]
    assert len(broad) <= BROAD_HANDLERS, broad
    assert {where.partition(":")[0] for where in broad} <= {"deployments/engines/base.py", "gateway/model/faults.py"}


def test_a_signals_handler_takes_no_lock() -> None:
    """A handler runs amid anything, its own lock's holder too: it puts into a queue that allows that, or exits."""
    found = []
    for path in MODULES + TESTS:
        for call in nodes(path):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "signal.signal":
                inner = [
                    node.func for handler in call.args[1:] for node in ast.walk(handler) if isinstance(node, ast.Call)
                ]
                found += [(label(path), ast.unparse(name)) for name in inner if ast.unparse(name) not in MAY_INTERRUPT]
    assert not found


def test_the_command_expects_no_error_of_every_kind() -> None:
    """The command reports only named errors as a sentence; any other is a bug and keeps its traceback."""
    handlers = [node.type for node in nodes(ROOT / "punctual.py") if isinstance(node, ast.ExceptHandler)]
    assert [ast.unparse(caught) for caught in handlers if caught] == [
        "SystemExit",
        "KeyboardInterrupt",
        "ModuleNotFoundError",
        "_expected()",
        "UnicodeDecodeError",
    ]
    named = [getattr(import_module(module), name) for module, name in punctual.EXPECTED]
    assert all(issubclass(kind, Exception) and kind.__module__.split(".")[0] in PACKAGES for kind in named)
    assert set(punctual._expected()) == set(named)
