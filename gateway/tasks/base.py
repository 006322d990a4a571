"""What a task is to the gateway: a name, a body, what is sent to a replica, and how long that takes."""

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
    """The union tag of `inputs`, by its kind alone: errors inside are then reported for that kind only."""
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
    """A kind of variant that serves a task: its manifest, and its service-time model."""

    manifest: type[VariantManifest]
    service_time: Callable[[Any], ServiceTimeModel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task. `name` is its endpoint, its key in catalogs, and its label in metrics.

    `read` takes a valid body and returns the parameters and the domain that it names; it raises InvalidRequest.
    `parameters` are sent to a replica; made without arguments they are the defaults. `output` is one output on the
    wire. `kinds` maps the name in a manifest to a kind of variant. `niceness` is the operating system priority of a
    replica by tier, 0 for a tier that is missing. `finish_reasons` are the reasons why a written text ends.
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
