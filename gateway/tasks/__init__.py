"""The tasks: one module each, with its body, parameters, service-time model and answer; registered here by name.

`base` says what a task is, `service_time` and `decoding` are the models that tasks share.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gateway.model.manifest import VariantManifest, parse_manifest
from gateway.tasks.base import Task, VariantKind
from gateway.tasks.classify import CLASSIFY
from gateway.tasks.embed import EMBED
from gateway.tasks.service_time import ServiceTimeModel
from gateway.tasks.similarity import SIMILARITY
from gateway.tasks.summarize import SUMMARIZE
from gateway.tasks.zero_shot import ZERO_SHOT

TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFY, SUMMARIZE, EMBED, SIMILARITY, ZERO_SHOT)}


def tasks_of(kind: str) -> tuple[str, ...]:
    """The tasks that variants of a kind serve."""
    return tuple(name for name, task in TASKS.items() if kind in task.kinds)


def meant_for(endpoint: str, has: Callable[[str], bool]) -> str:
    """The name of the task that answers a body of an endpoint: the one that claims it, else the endpoint's own.

    `has` says whether the body's `parameters` have a member of that name.
    """
    claims = ((name, task.claims) for name, task in TASKS.items())
    claiming = (name for name, claim in claims if claim and claim.endpoint == endpoint and has(claim.parameter))
    return next(claiming, endpoint)


def kind_of(manifest: VariantManifest, task: str | None = None) -> VariantKind:
    """The kind of a variant, as it serves a task (default: the manifest's own).

    Raises KeyError for a task or kind that is not registered.
    """
    return TASKS[task or manifest.task].kinds[manifest.kind]


def service_time_model(manifest: VariantManifest, task: str | None = None) -> ServiceTimeModel:
    """The service-time model of a variant of any kind, for a task (default: the manifest's own)."""
    return kind_of(manifest, task).service_time(manifest)


def read_manifest(folder: Path) -> VariantManifest:
    """Reads the manifest in a variant's folder. Raises FileNotFoundError, or pydantic's ValidationError."""
    return parse_manifest(folder, {name: kind.manifest for task in TASKS.values() for name, kind in task.kinds.items()})
