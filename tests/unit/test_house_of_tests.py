"""Laws of the tests themselves: none depends on how fast or busy the machine is."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
WAITING = {"waiting.py", "virtual_time.py"}
"""The files that may sleep and read the machine's clock, because tests wait with them."""

CLOCKS = {"monotonic", "perf_counter", "process_time", "thread_time", "time"}
CLOCKS |= {f"{name}_ns" for name in CLOCKS}
KEEPS = {"abs", "float", "int", "max", "min", "round", "sorted", "sum"}
"""Functions that return a time if they are given times."""

GENEROUS_S = 30.0
"""The shortest limit in real seconds after which a test may give up."""


@cache
def trees() -> dict[str, ast.Module]:
    """The checked test files, parsed, by path."""
    paths = [path for path in sorted(TESTS.rglob("*.py")) if path.name not in WAITING]
    assert len(paths) > 100, "the tests are found"
    return {str(path.relative_to(TESTS)): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def breaches(law: Callable[[ast.Module], Iterator[ast.expr]]) -> list[str]:
    """Where the tests break a law, as file and line."""
    return [f"{path}:{node.lineno}" for path, tree in trees().items() for node in law(tree)]


def called(node: ast.AST) -> str:
    """The last name of a called function, or an empty string."""
    name: str = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
    return name


def literal(node: ast.expr) -> float | None:
    """The number that an expression is, if it is one."""
    return float(node.value) if isinstance(node, ast.Constant) and isinstance(node.value, int | float) else None


def is_time(node: ast.AST, names: set[str]) -> bool:
    """Whether an expression is derived from the machine's clock, directly or through one of these names."""
    if isinstance(node, ast.Call) and called(node) not in KEEPS:
        return called(node) in CLOCKS or (isinstance(node.func, ast.Name) and node.func.id in names)
    if isinstance(node, ast.Name):
        return node.id in names
    return any(is_time(one, names) for one in ast.iter_child_nodes(node))


def timed(scope: ast.AST) -> set[str]:
    """The names of variables and functions whose values are derived from the machine's clock."""
    names: set[str] = set()
    for _ in range(3):  # a time, a difference of it, and a function that returns that
        for node in ast.walk(scope):
            if isinstance(node, ast.Assign) and is_time(node.value, names):
                stored = [one for target in node.targets for one in ast.walk(target) if isinstance(one, ast.Name)]
                names |= {one.id for one in stored if isinstance(one.ctx, ast.Store)}
            elif isinstance(node, ast.FunctionDef):
                returned = [one.value for one in node.body if isinstance(one, ast.Return) and one.value]
                names |= {node.name for one in returned if is_time(one, names)}
    return names


def bounds(tree: ast.Module) -> Iterator[ast.expr]:
    """Comparisons of such times; each top-level function and class has names of its own."""
    for scope in tree.body:
        if not any(called(one) in CLOCKS for one in ast.walk(scope)):
            continue
        names = timed(scope)
        yield from (one for one in ast.walk(scope) if isinstance(one, ast.Compare) and is_time(one, names))


def sleeps(tree: ast.Module) -> Iterator[ast.expr]:
    """Calls of `sleep` other than `sleep(0)`, and waits for an event that no other code can set."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and literal(node.args[0]) != 0:
            waits = called(node) == "wait" and called(getattr(node.func, "value", node)) == "Event"
            if waits or called(node) == "sleep":
                yield node
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from waits_alone(node)


def waits_alone(scope: ast.AST) -> Iterator[ast.expr]:
    """Waits for a local event that is used for nothing else, so that no other code can set it."""
    nodes = list(ast.walk(scope))
    made = [one.targets[0] for one in nodes if isinstance(one, ast.Assign) and called(one.value) == "Event"]
    for name in {one.id for one in made if isinstance(one, ast.Name)}:
        used = [one for one in nodes if isinstance(one, ast.Name) and one.id == name and isinstance(one.ctx, ast.Load)]
        waits = [one for one in nodes if isinstance(one, ast.Attribute) and one.attr == "wait" and one.value in used]
        if len(waits) == len(used):
            yield from used


def impatience(tree: ast.Module) -> Iterator[ast.expr]:
    """Calls that give up after less than `GENEROUS_S`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            limits = [one.value for one in node.keywords if one.arg == "timeout"]
            limits += node.args[-1:] if called(node) in ("timeout", "wait_for") else []
            if any((limit := literal(one)) is not None and limit < GENEROUS_S for one in limits):
                yield node


def test_no_real_duration_is_compared_with_a_bound() -> None:
    """No test compares a real duration with a bound, because a busy machine may take any time."""
    assert breaches(bounds) == []


def test_nobody_sleeps() -> None:
    """No test sleeps: tests wait for an event or a condition, and yield to the loop with `asyncio.sleep(0)`."""
    assert breaches(sleeps) == []


def test_whoever_waits_in_real_time_waits_long() -> None:
    """No test gives up after less than 30 seconds of real time, so that a busy machine never fails it."""
    assert breaches(impatience) == []


@pytest.mark.parametrize(
    ("law", "source", "breach"),
    [
        (bounds, "def f():\n    a = time.monotonic()\n    assert perf_counter() - a < 1", True),
        (bounds, "def f():\n    a = monotonic()\n    b = monotonic() - a\n    assert b < 1", True),
        (bounds, "def f():\n    def g():\n        return time.time()\n    assert min(g(), 9) > 1", True),
        (bounds, "def f(clock):\n    a = clock()\n    assert clock() - a == 1", False),
        (bounds, "def f():\n    a = submit(time.monotonic() + 600)\n    assert a == 1", False),
        (sleeps, "time.sleep(0.1)", True),
        (sleeps, "threading.Event().wait(0.1)", True),
        (sleeps, "def f():\n    pause = Event()\n    pause.wait(0.1)", True),
        (sleeps, "def f():\n    gate = Event()\n    submit(gate.set)\n    gate.wait(60)", False),
        (sleeps, "gate.wait(60)\nasyncio.sleep(0)", False),
        (impatience, "asyncio.timeout(5)", True),
        (impatience, "subprocess.run(a, timeout=10)", True),
        (impatience, "asyncio.wait_for(a, 60)", False),
    ],
)
def test_a_breach_is_found(law: Callable[[ast.Module], Iterator[ast.expr]], source: str, breach: bool) -> None:
    """The laws above find breaches, also through a variable or a function."""
    assert bool(list(law(ast.parse(source)))) == breach
