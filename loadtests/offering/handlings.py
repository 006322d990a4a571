"""Who chooses the checkpoint in a run: the gateway, pins that a person gave, or every static choice there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from loadtests.offering.calls import Handling, Mode
from loadtests.offering.errors import NoSuchPin
from loadtests.scenarios.capacity import candidates
from loadtests.scenarios.model import Scenario
from loadtests.simulator.variants import Variant

STATIC = "static:"


def own_handling(
    label: str | None, pins: Sequence[str], mode: Mode | None, scenario: Scenario, variants: Sequence[Variant]
) -> Handling:
    """The gateway's own choice, or where pins are given theirs, for every class of a pin's task. Raises NoSuchPin."""
    task_of = {one.name: one.task for one in variants}
    of_task: dict[str, str] = {}
    for name in pins:
        task = task_of.get(name)
        if task is None:
            raise NoSuchPin(f"{name}: the gateway serves {', '.join(sorted(task_of))}")
        if task not in scenario.tasks or task in of_task:
            raise NoSuchPin(f"{name}: {scenario.name} has no {task} that another pin does not take")
        of_task[task] = name
    by_class = {kind: of_task[one.task] for kind, one in enumerate(scenario.requests) if one.task in of_task}
    return Handling(label or (_static(pins) if pins else "gateway"), by_class, mode)


def best_pins(scenario: Scenario, variants: Sequence[Variant]) -> Mapping[int, str]:
    """The best checkpoint that may answer each class: what the quality tier is. Raises NoSuchPin."""
    return {kind: able[0].name for kind, able in enumerate(_able(scenario, variants))}


def static_handlings(scenario: Scenario, variants: Sequence[Variant], mode: Mode | None) -> tuple[Handling, ...]:
    """A handling for every choice of one checkpoint for each task that may answer all the task's classes.

    With one task that is one a checkpoint, with two every pair. One for a single domain is among them only where all
    classes of its task name that domain. Raises NoSuchPin.
    """
    able = _able(scenario, variants)
    by_task: dict[str, list[str]] = {}
    for kind, one in enumerate(scenario.requests):
        names = [variant.name for variant in able[kind]]
        by_task[one.task] = [name for name in by_task.get(one.task, names) if name in names]
    found = []
    for together in product(*by_task.values()):
        of_task = dict(zip(by_task, together, strict=True))
        by_class = {kind: of_task[one.task] for kind, one in enumerate(scenario.requests)}
        found.append(Handling(_static(together), by_class, mode))
    return tuple(found)


def _able(scenario: Scenario, variants: Sequence[Variant]) -> list[tuple[Variant, ...]]:
    """What may answer each class, the best first."""
    able = [candidates(one, variants) for one in scenario.requests]
    for one, found in zip(scenario.requests, able, strict=True):
        if not found:
            raise NoSuchPin(f"{scenario.name}: the gateway serves nothing that does {one.task}")
    return able


def _static(names: Sequence[str]) -> str:
    return STATIC + "+".join(names)
