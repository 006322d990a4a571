"""What a task is to the rest of the gateway: a name, a body, what crosses to a replica, and how long that takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag

from gateway.model.manifest import VariantManifest
from gateway.model.messages import Parameters
from gateway.model.tier import Tier
from gateway.tasks.service_time import ServiceTimeModel

Text = Annotated[str, StringConstraints(min_length=1)]


def _one_or_many(inputs: object) -> str | None:
    """The union tag of `inputs`: decided by its kind alone, so that a fault inside is told for that kind alone."""
    if isinstance(inputs, str):
        return "one"
    return "many" if isinstance(inputs, list) else None


Inputs = Annotated[
    Annotated[Text, Tag("one")] | Annotated[list[Text], Tag("many")],
    Discriminator(
        _one_or_many, custom_error_type="text_type", custom_error_message="Input should be a text or a list of texts"
    ),
]


class Strict(BaseModel):
    """A part of a request body: unknown fields are refused, and nothing is coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TaskBody(Strict):
    """The body of a task's endpoint: the texts, and in a subclass the parameters."""

    inputs: Inputs = Field(description="one text, or a list of them")

    def texts(self) -> Sequence[str]:
        """The texts to answer."""
        return (self.inputs,) if isinstance(self.inputs, str) else self.inputs


@dataclass(frozen=True, slots=True)
class VariantKind:
    """A kind of variant that serves a task: its manifest, and the model of its service time."""

    manifest: type[VariantManifest]
    service_time: Callable[[Any], ServiceTimeModel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task. `name` is its endpoint, its place in catalogs, and its label in metrics.

    `read` gives the parameters of a valid body and the domain that it names; it raises InvalidRequest. `parameters` is
    what crosses to a replica, all defaults where it is made without arguments; `output` is one output on the wire.
    `kinds` are the kinds of variant that serve it, by the name in their manifests. `niceness` is the operating system
    priority of a replica by tier, 0 for a tier without one. `finish_reasons` says why texts end, where they are
    written.
    """

    name: str
    summary: str
    body: type[TaskBody]
    read: Callable[[Any], tuple[Parameters, str | None]]
    parameters: type[Parameters]
    output: Any
    kinds: Mapping[str, VariantKind]
    default_budget_ms: float
    niceness: Mapping[Tier, int]
    finish_reasons: tuple[str, ...] = ()
