"""What a task is to the gateway: a name, a body, what is sent to a replica, and how long that takes.

A body is read generously, as other clients of the Hugging Face Inference API write it. A task declares how in its
fields: `Ignored` for what changes nothing, `Spellings` for other words for its values, `Sampling` for the parameters of
random draws where a task has none. What is not declared is refused by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    JsonValue,
    StringConstraints,
    Tag,
)
from pydantic_core import CoreSchema, core_schema

from gateway.model.errors import InvalidRequest
from gateway.model.manifest import VariantManifest
from gateway.model.messages import Delta, Parameters
from gateway.model.tier import Tier
from gateway.tasks.service_time import ServiceTimeModel

Text = Annotated[str, StringConstraints(min_length=1)]

_ItemT = TypeVar("_ItemT")
ListOf: TypeAlias = Annotated[list[_ItemT], Field(fail_fast=True)]
"""The type of a list in a body: it is read up to its first faulty item, so that no list has many faults to collect."""


ONE, MANY, PAIR, CONVERSATION = INPUTS_TAGS = ("(one)", "(many)", "(pair)", "(conversation)")
"""The union tags of `inputs`, which pydantic names in the places of faults, and no client as a field."""


def _one_or_many(inputs: object) -> str | None:
    """The union tag of `inputs`, by its kind alone: errors inside are then reported for that kind only."""
    if isinstance(inputs, str):
        return ONE
    return MANY if isinstance(inputs, list) else None


def one_or_many(otherwise: str) -> Discriminator:
    """Tells a text from a list; what is neither is refused by these words."""
    return Discriminator(_one_or_many, custom_error_type="text_type", custom_error_message=otherwise)


Inputs = Annotated[
    Annotated[Text, Tag(ONE)] | Annotated[ListOf[Text], Tag(MANY)],
    one_or_many("Input should be a text or a list of texts"),
]


MOST_CHARACTERS_OF_A_NAME = 64
"""Characters of a client's field name that an answer repeats."""

BY_ANOTHER_NAME: dict[str, JsonValue] = {"deprecated": True}
"""`json_schema_extra` of a field that exists for clients of other servers only: the console offers none of them."""


class _WithoutEffect:
    """Marks the fields of `Ignored`."""


_ValueT = TypeVar("_ValueT")

Ignored: TypeAlias = Annotated[
    _ValueT | None,
    _WithoutEffect(),
    Field(description="accepted and without effect", json_schema_extra=BY_ANOTHER_NAME),
]
"""The type of a field that changes nothing here. It is accepted, and listed in the details if it was sent."""


@dataclass(frozen=True, eq=False)
class Spellings:
    """Other words for the values of a field, each with the value that it is read as."""

    others: Mapping[str | bool, str]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Has the field translated before it is validated."""
        return core_schema.no_info_before_validator_function(self._own, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Documents the other words beside the field's own."""
        return {"anyOf": [handler(schema), {"enum": list(self.others)}]}

    def _own(self, value: object) -> object:
        return self.others.get(value, value) if isinstance(value, str | bool) else value


class Strict(BaseModel):
    """A part of a request body: unknown fields are refused, and nothing is coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def ignored(self, path: str = "") -> Iterator[str]:
        """The paths of all that was sent and changes nothing, such as `parameters.temperature`."""
        for name, known in type(self).model_fields.items():
            value = getattr(self, name)
            if value is None or name not in self.model_fields_set:
                continue
            if isinstance(value, Strict):
                yield from value.ignored(f"{path}{name}.")
            elif any(isinstance(one, _WithoutEffect) for one in known.metadata):
                within = [f".{key[:MOST_CHARACTERS_OF_A_NAME]}" for key in value] if isinstance(value, dict) else [""]
                yield from (f"{path}{name}{key}" for key in within)


class Sampling(Strict):
    """Parameters of random draws, for tasks that draw nothing: they search for the likeliest text.

    Where `do_sample` is false, as always here, those that shape the draw change nothing. Those that change a search too
    have the one value that leaves it as it is.
    """

    do_sample: Literal[False] | None = Field(
        default=None, description="texts are searched for, never drawn", json_schema_extra=BY_ANOTHER_NAME
    )
    temperature: Ignored[float] = None
    top_k: Ignored[int] = None
    top_p: Ignored[float] = None
    typical_p: Ignored[float] = None
    min_p: Ignored[float] = None
    epsilon_cutoff: Ignored[float] = None
    eta_cutoff: Ignored[float] = None
    seed: Ignored[int] = None
    use_cache: Ignored[bool] = None
    repetition_penalty: Annotated[float, Field(ge=1, le=1)] | None = Field(
        default=None, description="1 alone: no word is made less likely", json_schema_extra=BY_ANOTHER_NAME
    )
    diversity_penalty: Annotated[float, Field(ge=0, le=0)] | None = Field(
        default=None, description="0 alone: beams do not repel each other", json_schema_extra=BY_ANOTHER_NAME
    )
    num_beam_groups: Annotated[int, Field(ge=1, le=1)] | None = Field(
        default=None, description="1 alone: there is one group of beams", json_schema_extra=BY_ANOTHER_NAME
    )
    num_return_sequences: Annotated[int, Field(ge=1, le=1)] | None = Field(
        default=None, description="1 alone: an input has one answer", json_schema_extra=BY_ANOTHER_NAME
    )


class RequestBody(Strict, ABC):
    """The body of a task's endpoint, whatever its `inputs` look like."""

    @property
    def wants_events(self) -> bool | None:
        """Whether the answer is to come as server-sent events; None leaves that to the headers."""
        return None

    @abstractmethod
    def texts(self) -> Sequence[str]:
        """The texts that a replica is sent, in order."""

    def place_of(self, at: int) -> tuple[str, int | None]:
        """The field of one of the `texts` by its path, and its index where that is of a list."""
        return (f"inputs[{at}]", at) if isinstance(getattr(self, "inputs", None), list) else ("inputs", at)

    @staticmethod
    @abstractmethod
    def inputs_of(texts: Sequence[str]) -> object:
        """The `inputs` of a body with these texts, at least one, as JSON data."""

    @classmethod
    def document_of(cls, texts: Sequence[str]) -> dict[str, object]:
        """A body with these texts, at least one, as JSON data: what a load generator sends."""
        return {"inputs": cls.inputs_of(texts)}


Options: TypeAlias = Ignored[dict[str, JsonValue]]
OPTIONS: Any = Field(
    default=None, description="how Hugging Face's own servers queue and cache; accepted and without effect"
)
"""The field `options` of a body."""


class TaskBody(RequestBody):
    """A body with a text or a list of texts, and in a subclass the parameters."""

    inputs: Inputs = Field(description="one text, or a list of them")
    options: Options = OPTIONS

    def texts(self) -> Sequence[str]:
        """The texts to answer."""
        return (self.inputs,) if isinstance(self.inputs, str) else self.inputs

    @staticmethod
    def inputs_of(texts: Sequence[str]) -> object:
        """A single text as itself, several as a list."""
        return texts[0] if len(texts) == 1 else list(texts)


class StreamedBody(RequestBody):
    """The body of a task whose answers are told while they are written."""

    stream: bool | None = Field(
        default=None, description="true answers by server-sent events, as the header Accept: text/event-stream does"
    )

    @property
    def wants_events(self) -> bool | None:
        """What `stream` says."""
        return self.stream


def _nothing(manifest: VariantManifest) -> str | None:
    """Every variant of the kind serves the task."""
    return None


@dataclass(frozen=True, slots=True)
class VariantKind:
    """A kind of variant that serves a task: its manifest, and its service-time model.

    `lacks` says what a variant of the kind must have and does not, in a few words, or None. One that lacks something is
    refused where it is made for the task, and by its replicas.
    """

    manifest: type[VariantManifest]
    service_time: Callable[[Any], ServiceTimeModel]
    lacks: Callable[[Any], str | None] = _nothing


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


@dataclass(frozen=True, slots=True)
class Claim:
    """The bodies of another task's endpoint that are meant for this task: those with a member in their `parameters`.

    Other servers have one endpoint a model, and tell tasks apart by what is sent.
    """

    endpoint: str
    parameter: str


@dataclass(frozen=True, slots=True)
class Document:
    """How an answer is made of the outputs, where it is not the list of them.

    `of` takes the body, the outputs and the client's `User-Agent`, which may be empty and is looked at where it
    `depends` on that. `types` are the documents that it makes. The details have the outputs as they are.
    """

    types: tuple[Any, ...]
    of: Callable[[Any, Sequence[Any], str], object]
    depends: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event: its data, which is encoded as JSON (but for msgspec.Raw), and its name if it has one."""

    data: object
    name: str | None = None


def _delta_event(body: Any, delta: Delta) -> Event:
    return Event({"index": delta.index, "text": delta.text})


def _done_event(body: Any, details: Mapping[str, object]) -> Sequence[Event]:
    return (Event(details, "done"),)


@dataclass(frozen=True, slots=True)
class Streaming:
    """The events of an answer that is told while it is written.

    `delta` makes one of the body and a delta, `end` the last ones of the body and the document of the details, which
    has `finish_reason` beside.
    """

    delta: Callable[[Any, Delta], Event] = _delta_event
    end: Callable[[Any, Mapping[str, object]], Sequence[Event]] = _done_event


def _anything(manifest: VariantManifest, parameters: Parameters) -> None:
    """Refuse nothing."""


class Unable(InvalidRequest):
    """Raised if no checkpoint can do what the parameters ask for, while one that is still to come might."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """One task. `name` is its endpoint, its key in catalogs, and its label in metrics.

    `read` takes a valid body and returns the parameters and the domain that it names; it raises InvalidRequest.
    `parameters` are sent to a replica; made without arguments they are the defaults. `output` is one output on the
    wire. `kinds` maps the name in a manifest to a kind of variant. `niceness` is the operating system priority of a
    replica by tier, 0 for a tier that is missing. `finish_reasons` are the reasons why a written text ends. `facts` are
    told with every answer. `claims` says which bodies of another endpoint are meant for this task, and `document` makes
    the answer where it is more than the list of outputs. `windowed` tasks take long texts in overlapping windows, and
    details say how many. A task `runs_equal_texts_once` if its replicas run equal texts of one request as one; it is
    forecast so.

    A task that is told while it is written `streams`: its replicas emit deltas, and its body is a `StreamedBody`. What
    any other task answers to a client that reads events alone is one event, at its end.

    `openai` has the endpoints of OpenAI's interface that the task answers (`chat`, `completions`, `embeddings`), each
    with the parameters of its body that it takes of what may be asked there. Of several tasks that which takes the most
    answers a client that names none.

    `able` takes the manifests of checkpoints by name, and the parameters. It names those that can do what is asked. It
    raises Unable if none can but another might, InvalidRequest if no other would help; without it all can.

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
    claims: Claim | None = None
    document: Document | None = None
    streams: Streaming | None = None
    openai: Mapping[str, Collection[str]] = field(default_factory=dict)
    windowed: bool = False
    runs_equal_texts_once: bool = False
    able: Callable[[Mapping[str, Any], Any], Collection[str]] | None = None
    fixed_checkpoint: bool = False
    check: Callable[[Any, Any], None] = _anything
