"""The tasks: one module each, with its body, parameters, service-time model and answer; registered here by name.

`base` says what a task is; `service_time`, `windows` and `decoding` are the models that tasks share.
"""

from __future__ import annotations

from pathlib import Path

from gateway.model.manifest import VariantManifest, parse_manifest
from gateway.tasks.answer import ANSWER
from gateway.tasks.base import Task, VariantKind
from gateway.tasks.classify import CLASSIFY
from gateway.tasks.embed import EMBED
from gateway.tasks.fill import FILL
from gateway.tasks.generate import GENERATE
from gateway.tasks.service_time import ServiceTimeModel
from gateway.tasks.similarity import SIMILARITY
from gateway.tasks.summarize import SUMMARIZE
from gateway.tasks.tokens import TOKENS
from gateway.tasks.translate import TRANSLATE
from gateway.tasks.zero_shot import ZERO_SHOT

TASKS: dict[str, Task] = {
    task.name: task
    for task in (CLASSIFY, SUMMARIZE, EMBED, SIMILARITY, TOKENS, ZERO_SHOT, ANSWER, FILL, GENERATE, TRANSLATE)
}


def tasks_of(kind: str) -> tuple[str, ...]:
    """The tasks that variants of a kind serve."""
    return tuple(name for name, task in TASKS.items() if kind in task.kinds)


def claims_on(endpoint: str) -> dict[str, str]:
    """The tasks that claim bodies of an endpoint, by the parameter that such a body has."""
    claims = ((name, task.claims) for name, task in TASKS.items())
    return {claim.parameter: name for name, claim in claims if claim is not None and claim.endpoint == endpoint}


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
