"""What the kinds of replicas have to do with the tasks that they serve."""

from __future__ import annotations

from importlib import import_module

import pytest

from deployments.replica.batched import BatchedReplica
from deployments.replica.kinds import KINDS
from gateway.tasks import TASKS
from gateway.tasks.base import Task


def runs_in_one_pass(kind: str) -> bool:
    """Return whether replicas of a kind run distinct inputs in padded batches."""
    made = [one for one in vars(import_module(KINDS[kind])).values() if isinstance(one, type)]
    return any(issubclass(one, BatchedReplica) and one is not BatchedReplica for one in made)


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_equal_texts_are_forecast_once_where_they_run_once(task: Task) -> None:
    """A task is forecast by its distinct texts if the replicas of all its kinds run those alone, else by all."""
    assert {runs_in_one_pass(kind) for kind in task.kinds} == {task.runs_equal_texts_once}
