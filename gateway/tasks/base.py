"""What a task is to the gateway: a name, a body, what is sent to a replica, and how long that takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag

from gateway.model.manifest import VariantManifest
from gateway.model.messages import Parameters
from gateway.model.tier import Tier
from gateway.tasks.service_time import ServiceTimeModel

Text = Annotated[str, StringConstraints(min_length=1)]


_ONE, _MANY = INPUTS_TAGS = ("(one)", "(many)")
"""The union tags of `inputs`, which pydantic names in the places of faults, and no client as a field."""


def _one_or_many(inputs: object) -> str | None:
    """The union tag of `inputs`, by its kind alone: errors inside are then reported for that kind only."""
    if isinstance(inputs, str):
        return _ONE
    return _MANY if isinstance(inputs, list) else None


Inputs = Annotated[
    Annotated[Text, Tag(_ONE)] | Annotated[list[Text], Tag(_MANY)],
    Discriminator(
        _one_or_many, custom_error_type="text_type", custom_error_message="Input should be a text or a list of texts"
    ),
]


class Strict(BaseModel):
    """A part of a request body: unknown fields are refused, and nothing is coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RequestBody(Strict, ABC):
    """The body of a task's endpoint, whatever its `inputs` look like."""

    @abstractmethod
    def texts(self) -> Sequence[str]:
        """The texts that a replica is sent, in order."""

    @staticmethod
    @abstractmethod
    def inputs_of(texts: Sequence[str]) -> object:
        """The `inputs` of a body with these texts, at least one, as JSON data: what a load generator sends."""


class TaskBody(RequestBody):
    """A body with a text or a list of texts, and in a subclass the parameters."""

    inputs: Inputs = Field(description="one text, or a list of them")

    def texts(self) -> Sequence[str]:
        """The texts to answer."""
        return (self.inputs,) if isinstance(self.inputs, str) else self.inputs

    @staticmethod
    def inputs_of(texts: Sequence[str]) -> object:
        """A single text as itself, several as a list."""
        return texts[0] if len(texts) == 1 else list(texts)


@dataclass(frozen=True, slots=True)
class VariantKind:
    """A kind of variant that serves a task: its manifest, and its service-time model."""

    manifest: type[VariantManifest]
    service_time: Callable[[Any], ServiceTimeModel]


@dataclass(frozen=True, slots=True)
class Fact:
    """What answers say of the checkpoint beside its name: a header, and a member of the details.

    `of` reads the value, which is of `type`, from the checkpoint's manifest.
    """

    name: str
    header: str
    type: type[str] | type[int]
    description: str
    of: Callable[[Any], str | int]


def _anything(manifest: VariantManifest, parameters: Parameters) -> None:
    """Refuse nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task. `name` is its endpoint, its key in catalogs, and its label in metrics.

    `read` takes a valid body and returns the parameters and the domain that it names; it raises InvalidRequest.
    `parameters` are sent to a replica; made without arguments they are the defaults. `output` is one output on the
    wire. `kinds` maps the name in a manifest to a kind of variant. `niceness` is the operating system priority of a
    replica by tier, 0 for a tier that is missing. `finish_reasons` are the reasons why a written text ends. `facts` are
    told with every answer.

    `fixed_checkpoint` says that answers of different checkpoints do not compare. The budget then never switches: a
    request without a pin gets the catalog's default checkpoint. `check` raises InvalidRequest if that checkpoint cannot
    do what the parameters ask for; tasks whose checkpoint is not fixed have none.
    """

    name: str
    summary: str
    body: type[RequestBody]
    read: Callable[[Any], tuple[Parameters, str | None]]
    parameters: type[Parameters]
    output: Any
    kinds: Mapping[str, VariantKind]
    default_budget_ms: float
    niceness: Mapping[Tier, int]
    finish_reasons: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()
    fixed_checkpoint: bool = False
    check: Callable[[Any, Any], None] = _anything
