"""OpenAI's interface: bodies become those of the tasks, and answers and problems become OpenAI's, over one path.

Nothing here runs or decides. `model` names a checkpoint, a tier ("at least that good"), or a task; a checkpoint is
pinned as `X-Checkpoint` does it, a tier is asked for as `X-Min-Tier` does. Budgets are those of the contract's headers.
"""

from __future__ import annotations

import base64
import re
import sys
from abc import abstractmethod
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeAlias, TypedDict

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, to_builtins
from pydantic import Field, JsonValue, Tag, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from gateway.api import bodies
from gateway.api.responses import Events
from gateway.api.responses import Told as Facts
from gateway.model.errors import InputTooLong, InternalError, InvalidRequest, NotFound, Problem, UnknownTask
from gateway.model.messages import Answer, Delta, FinishReason
from gateway.model.request import CHECKPOINT, MIN_TIER, Terms
from gateway.model.tier import Tier
from gateway.observability.record import RequestRecord
from gateway.service import Finished
from gateway.tasks import TASKS
from gateway.tasks.base import MANY, ONE, Event, Ignored, Inputs, ListOf, RequestBody, Strict, Task, one_or_many

PREFIX = "/v1/"
"""Paths of OpenAI's interface, whose errors have OpenAI's form."""

ANY_MODEL = "punctual"
"""The `model` that leaves the choice of task and checkpoint to the gateway."""

_STAND_INS = re.compile(r"tgi|dummy|https?://.*")
"""What Hugging Face's clients send as `model` where they know an address alone: huggingface_hub a word, its JavaScript
sibling the address. It leaves the choice to the gateway."""

Json: TypeAlias = dict[str, Any]

NONE: Mapping[str, str] = {}
"""No names: of a body that was not read, the faults are by its own fields."""


class Part(Strict):
    """A part of what a message says."""

    type: Literal["text"] = Field(description="text alone: no image or sound is read")
    text: str


class ChatMessage(Strict):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"] = Field(
        description="developer is read as system; one of these two that says nothing is left out"
    )
    content: Annotated[
        Annotated[str, Tag(ONE)] | Annotated[ListOf[Part], Tag(MANY)],
        one_or_many("Input should be a text or a list of parts"),
    ]
    name: Ignored[str] = None

    @field_validator("content")
    @classmethod
    def _says_something(cls, content: str | list[Part], known: ValidationInfo) -> str | list[Part]:
        """Refuses a message that says nothing, where it is not left out."""
        silent = not content if isinstance(content, str) else not any(part.text for part in content)
        if silent and known.data.get("role") in ("user", "assistant"):
            raise PydanticCustomError("silent", "must not be empty")
        return content

    def said(self) -> str:
        """The text of the message."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Strict):
    """How parts are streamed."""

    include_usage: bool | None = Field(default=None, description="the numbers of tokens come in a last part")
    include_obfuscation: Ignored[bool] = None


class TextFormat(Strict):
    """The form of the answer."""

    type: Literal["text"] = Field(description="text alone: no grammar is followed")


class OpenAIBody(Strict):
    """What every body of OpenAI's interface has."""

    model: str = Field(description="a checkpoint, a tier, a task, or `punctual`, which leaves the choice to the budget")
    user: Ignored[str] = None

    @abstractmethod
    def inputs(self) -> object:
        """The `inputs` of the task's own body."""

    @abstractmethod
    def parameters(self) -> Json:
        """The `parameters` of that body, of which those that were not given are left out."""

    @property
    @abstractmethod
    def names(self) -> Mapping[str, str]:
        """The fields of this body by those of the task's own, where they differ."""

    @property
    def wants_events(self) -> bool:
        """True if the answer is to be told while it is written."""
        return False

    @abstractmethod
    def answer(self, answer: Answer, told: Told) -> object:
        """The document of an answer."""

    def chunk(self, told: Told, choices: Sequence[Said], usage: Usage | None = None) -> object:
        """The document of a part of an answer. Only bodies that want events are asked for one."""
        raise NotImplementedError


class Told(Struct, frozen=True):
    """What an answer says of itself: its id, the seconds since 1970, and the checkpoint that answered."""

    id: str
    created: int
    checkpoint: str


class Said(Struct, frozen=True):
    """What a part says: of which choice, its text, whether that is the choice's first, and why the choice ends."""

    index: int
    text: str
    first: bool = False
    ended: Ended | None = None


class WritingBody(OpenAIBody):
    """What bodies have that ask for text."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: int | None = None
    stop: (
        Annotated[
            Annotated[str, Tag(ONE)] | Annotated[ListOf[str], Tag(MANY)],
            one_or_many("Input should be a text or a list of texts"),
        ]
        | None
    ) = None
    n: Annotated[int, Field(ge=1, le=1)] | None = Field(default=None, description="1 alone: one answer is written")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logit_bias: Annotated[dict[str, JsonValue], Field(max_length=0)] | None = Field(
        default=None, description="empty alone: no token is made likelier by hand"
    )
    metadata: Ignored[dict[str, JsonValue]] = None
    store: Ignored[bool] = None
    service_tier: Ignored[str] = None

    @property
    def wants_events(self) -> bool:
        """What `stream` says."""
        return self.stream is True

    def shaped(self, most: int | None) -> Json:
        """How a text of at most so many tokens is to be written."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        given = {
            "max_new_tokens": most,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "seed": None if self.seed is None else self.seed % 2**63,
            "stop": stop,
        }
        return {name: value for name, value in given.items() if value is not None}


class ChatBody(WritingBody):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[ListOf[ChatMessage], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: Literal[False] | None = None
    response_format: TextFormat | None = None
    tools: Annotated[list[JsonValue], Field(max_length=0)] | None = Field(
        default=None, description="empty alone: no tool is called"
    )
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: Ignored[bool] = None
    reasoning_effort: Ignored[str] = None
    prompt_cache_key: Ignored[str] = None
    safety_identifier: Ignored[str] = None

    @property
    def names(self) -> Mapping[str, str]:
        """The length goes by the name that was sent."""
        most = "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"
        return {"inputs": "messages", "max_new_tokens": most}

    def inputs(self) -> object:
        """The conversation. A system message that says nothing is left out."""
        return [
            {"role": "system" if one.role == "developer" else one.role, "content": one.said()}
            for one in self.messages
            if one.said() or one.role not in ("system", "developer")
        ]

    def parameters(self) -> Json:
        """How the assistant's answer is to be written."""
        return self.shaped(self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens)

    def answer(self, answer: Answer, told: Told) -> ChatCompletion:
        """What the assistant says."""
        choices = [
            ChatChoice(at, ChatSaid(text), reason)
            for at, (text, reason) in enumerate(_written(answer, "generated_text"))
        ]
        return ChatCompletion(f"chatcmpl-{told.id}", told.created, told.checkpoint, choices, usage_of(answer))

    def chunk(self, told: Told, choices: Sequence[Said], usage: Usage | None = None) -> ChatChunk:
        """What the assistant says next."""
        parts = [
            ChatPart(one.index, {"role": "assistant", "content": one.text} if one.first else _content(one), one.ended)
            for one in choices
        ]
        return ChatChunk(f"chatcmpl-{told.id}", told.created, told.checkpoint, parts, usage or UNSET)


class CompletionBody(WritingBody):
    """The body of `POST /v1/completions`."""

    prompt: Inputs
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    echo: bool | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = Field(default=None, description="empty alone")
    best_of: Annotated[int, Field(ge=1, le=1)] | None = Field(default=None, description="1 alone")
    logprobs: None = Field(
        default=None, description="null alone: of no token a probability is told, and 0 asks for them"
    )

    @property
    def names(self) -> Mapping[str, str]:
        """The prompt, its length, and whether it is repeated."""
        return {"inputs": "prompt", "max_new_tokens": "max_tokens", "return_full_text": "echo"}

    def inputs(self) -> object:
        """The prompts."""
        return self.prompt

    def parameters(self) -> Json:
        """How each is to be written on, or summarised."""
        return self.shaped(self.max_tokens) | ({"return_full_text": True} if self.echo else {})

    def answer(self, answer: Answer, told: Told) -> Completion:
        """What was written after each prompt."""
        choices = [TextChoice(at, text, reason) for at, (text, reason) in enumerate(_written(answer, None))]
        return Completion(f"cmpl-{told.id}", told.created, told.checkpoint, choices, usage_of(answer))

    def chunk(self, told: Told, choices: Sequence[Said], usage: Usage | None = None) -> TextChunk:
        """What was written next."""
        parts = [TextPart(one.index, one.text, one.ended) for one in choices]
        return TextChunk(f"cmpl-{told.id}", told.created, told.checkpoint, parts, usage or UNSET)


class EmbeddingsBody(OpenAIBody):
    """The body of `POST /v1/embeddings`."""

    input: Inputs
    encoding_format: Literal["float", "base64"] | None = None

    @property
    def names(self) -> Mapping[str, str]:
        """The texts."""
        return {"inputs": "input"}

    def inputs(self) -> object:
        """The texts."""
        return self.input

    def parameters(self) -> Json:
        """Vectors have the length 1; a text over the window is refused."""
        return {"normalize": True, "truncate": False}

    def answer(self, answer: Answer, told: Told) -> Embeddings:
        """The vectors, as numbers or as the base64 of their 32-bit floats, little-endian."""
        packed = self.encoding_format == "base64"
        data = [Embedding(at, _packed(one) if packed else one) for at, one in enumerate(answer.outputs)]
        read = answer.input.tokens
        return Embeddings(told.checkpoint, data, EmbeddingUsage(read, read))


Ended: TypeAlias = Literal["stop", "length"]
"""Why a text ends, in OpenAI's words. One that the deadline cut counts as `length`; X-Finish-Reason tells."""


class Usage(Struct, frozen=True):
    """The tokens of a request, by the checkpoint's own tokenizer: read, written, and together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class EmbeddingUsage(Struct, frozen=True):
    """The tokens of texts that became vectors."""

    prompt_tokens: int
    total_tokens: int


class ChatSaid(Struct, frozen=True):
    """What the assistant says."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class ChatChoice(Struct, frozen=True):
    """One answer of the assistant."""

    index: int
    message: ChatSaid
    finish_reason: Ended
    logprobs: None = None


class ChatCompletion(Struct, frozen=True):
    """The answer of `POST /v1/chat/completions`."""

    id: str
    created: Annotated[int, Meta(description="seconds since 1970")]
    model: Annotated[str, Meta(description="the checkpoint that answered")]
    choices: list[ChatChoice]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"


class ChatPart(Struct, frozen=True):
    """What an answer of the assistant goes on with."""

    index: int
    delta: dict[str, str]
    finish_reason: Ended | None
    logprobs: None = None


class ChatChunk(Struct, frozen=True):
    """One event of a streamed answer of `POST /v1/chat/completions`."""

    id: str
    created: int
    model: str
    choices: list[ChatPart]
    usage: Usage | UnsetType = UNSET
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


class TextPart(Struct, frozen=True):
    """What the text after one prompt goes on with."""

    index: int
    text: str
    finish_reason: Ended | None
    logprobs: None = None


class TextChunk(Struct, frozen=True):
    """One event of a streamed answer of `POST /v1/completions`."""

    id: str
    created: int
    model: str
    choices: list[TextPart]
    usage: Usage | UnsetType = UNSET
    object: Literal["text_completion"] = "text_completion"


class TextChoice(Struct, frozen=True):
    """What was written after one prompt."""

    index: int
    text: str
    finish_reason: Ended
    logprobs: None = None


class Completion(Struct, frozen=True):
    """The answer of `POST /v1/completions`."""

    id: str
    created: Annotated[int, Meta(description="seconds since 1970")]
    model: Annotated[str, Meta(description="the checkpoint that answered")]
    choices: list[TextChoice]
    usage: Usage
    object: Literal["text_completion"] = "text_completion"


class Embedding(Struct, frozen=True):
    """The vector of one text."""

    index: int
    embedding: Annotated[
        Any, Meta(extra_json_schema={"anyOf": [{"type": "array", "items": {"type": "number"}}, {"type": "string"}]})
    ]
    object: Literal["embedding"] = "embedding"


class Embeddings(Struct, frozen=True):
    """The answer of `POST /v1/embeddings`."""

    model: Annotated[str, Meta(description="the checkpoint that answered")]
    data: list[Embedding]
    usage: EmbeddingUsage
    object: Literal["list"] = "list"


class Model(Struct, frozen=True):
    """Something that `model` may name: a checkpoint, a tier or a task."""

    id: str
    created: Annotated[int, Meta(description="seconds since 1970: when this process began")]
    owned_by: str = "punctual"
    object: Literal["model"] = "model"


class Models(Struct, frozen=True):
    """The answer of `GET /v1/models`."""

    data: list[Model]
    object: Literal["list"] = "list"


class OpenAIFault(Struct, frozen=True):
    """What is wrong with a request."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIProblem(Struct, frozen=True):
    """An error in OpenAI's form. The problem's own members stand beside it, such as the least feasible budget."""

    error: OpenAIFault
    punctual: Annotated[dict[str, Any] | UnsetType, Meta(description="the problem document of the contract")] = UNSET


class UnknownModel(NotFound):
    """Raised if the `model` of OpenAI's interface names nothing that answers there."""

    class Members(TypedDict):
        """What it may name."""

        models: list[str]

    code, title = "unknown_model", "The model is not served"

    def __init__(self, models: Sequence[str]) -> None:
        super().__init__(f"model must be one of: {', '.join(models)}", self.Members(models=list(models)))


def now_s() -> int:
    """The seconds since 1970."""
    return int(datetime.now(UTC).timestamp())


def usage_of(answer: Answer) -> Usage:
    """The tokens that were read and written."""
    read, written = answer.input.kept, sum(one.tokens for one in answer.generation)
    return Usage(read, written, read + written)


def ended(reason: FinishReason) -> Ended:
    """Why a text ends, in OpenAI's words."""
    return "stop" if reason in ("stop", "short") else "length"


def models_of(checkpoints: Mapping[str, Sequence[str]], created: int) -> Models:
    """What `model` may name: the checkpoints, of which the tasks are given, then tiers, tasks and the choice of all.

    Only what answers in OpenAI's interface is listed.
    """
    answering = [name for name in _served(checkpoints) if TASKS[name].openai]
    if not answering:
        return Models([])
    return Models([Model(name, created) for name in _models(checkpoints, answering)])


def placed(endpoint: str, model: str, checkpoints: Mapping[str, Sequence[str]]) -> tuple[Task, Terms]:
    """The task that answers a body of an endpoint, and the terms that its `model` asks for.

    `checkpoints` has the tasks of each checkpoint of the catalog. Raises UnknownTask if none of them has a task that
    answers there, UnknownModel if the model is nothing that is served here.
    """
    served = _served(checkpoints)
    answering = [name for name in served if endpoint in TASKS[name].openai]
    if not answering:
        raise UnknownTask(served)
    wanted = sorted(answering, key=lambda name: -len(TASKS[name].openai[endpoint]))
    if model in checkpoints:
        own = [task for task in wanted if task in checkpoints[model]]
        if own:
            return TASKS[own[0]], Terms(pinned=model)
    elif model in set(Tier):
        return TASKS[wanted[0]], Terms(min_tier=Tier(model))
    elif model in wanted or model == ANY_MODEL or _STAND_INS.fullmatch(model):
        return TASKS[model if model in wanted else wanted[0]], Terms()
    raise UnknownModel(_models(checkpoints, wanted))


def document_of(body: OpenAIBody, endpoint: str, task: Task) -> Json:
    """The body of a task's own endpoint.

    What the task does not take is left out where it changes nothing. Raises InvalidRequest where it would.
    """
    taken, given = task.openai[endpoint], body.parameters()
    for name, value in given.items():
        if name not in taken and value:
            raise InvalidRequest.of_field(body.names.get(name, name), f"is not done by {task.name}")
    return {"inputs": body.inputs(), "parameters": {name: given[name] for name in given if name in taken}}


def _served(checkpoints: Mapping[str, Sequence[str]]) -> list[str]:
    """The tasks that some checkpoint serves, as they are registered."""
    return [name for name in TASKS if any(name in of for of in checkpoints.values())]


def _models(checkpoints: Mapping[str, Sequence[str]], tasks: Sequence[str]) -> list[str]:
    """What `model` may name where one of these tasks answers."""
    names = [name for name, of in checkpoints.items() if any(task in of for task in tasks)]
    return [*names, *Tier, *tasks, ANY_MODEL]


def names_of(body: OpenAIBody, asked: Terms) -> Mapping[str, str]:
    """The fields of a body by those of the task's own, and by the headers in whose place its `model` asks."""
    headers = {CHECKPOINT: asked.pinned, MIN_TIER: asked.min_tier}
    return {**body.names, **{header: "model" for header, value in headers.items() if value is not None}}


def joined(terms: Terms, asked: Terms) -> Terms:
    """The terms of the headers with those of the `model`, which says more: it stands in the body."""
    return replace(terms, pinned=asked.pinned or terms.pinned, min_tier=asked.min_tier or terms.min_tier)


_OURS = re.compile(r"^(?:parameters\.)?(\w+)")
"""Where a field is the task's own."""


def in_their_words(problem: Problem, names: Mapping[str, str]) -> Problem:
    """The problem with the fields of the client's body in place of the task's own, by the `names` of `names_of`."""

    def theirs(field: str) -> str:
        return _OURS.sub(lambda found: names.get(found[1], found[1]), field)

    def of_body(fault: Mapping[str, str]) -> Mapping[str, str]:
        if "field" in fault:
            return {**fault, "field": theirs(fault["field"])}
        header = fault.get("header", "")
        return {"field": names[header], "message": fault["message"]} if header in names else fault

    if names and isinstance(problem, InvalidRequest | InputTooLong):
        field, colon, message = problem.detail.partition(": ")
        problem.detail = f"{theirs(field)}{colon}{message}"
        for header in {CHECKPOINT, MIN_TIER} & names.keys():
            problem.detail = problem.detail.replace(header, names[header])
        errors = problem.members.get("errors")
        if isinstance(errors, list):
            problem.members["errors"] = [of_body(one) for one in errors]
    return problem


def problem_document(problem: Problem, names: Mapping[str, str] = NONE) -> tuple[int, OpenAIProblem]:
    """The status and the document of a problem in OpenAI's form, with the fields of the client's body by their `names`.

    What does not validate is a 400 there, and so is a text that is too long. All other statuses are the contract's.
    """
    problem = in_their_words(problem, names)
    status = problem.http_status
    if isinstance(problem, InvalidRequest | InputTooLong):
        status = 400
    errors = problem.members.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else {}
    param = "model" if isinstance(problem, UnknownModel) else first.get("field")
    code = {"input_too_long": "context_length_exceeded", "unknown_model": "model_not_found"}
    kind = "invalid_request_error" if status < 429 else "rate_limit_error" if status == 429 else "server_error"
    fault = OpenAIFault(problem.detail, kind, param, code.get(problem.code, problem.code))
    return status, OpenAIProblem(fault, {**problem.document(), "status": status})


@dataclass(frozen=True, slots=True)
class OpenAIForm:
    """The form of OpenAI's interface, of the answer to one body. `own` is the task's own body of it."""

    body: OpenAIBody
    own: RequestBody
    id: str
    created: int

    @property
    def headers(self) -> Mapping[str, str]:
        """No more than those of the contract."""
        return {}

    def document(self, finished: Finished, answer: Answer, told: Facts) -> object:
        """The body of a plain answer."""
        return self.body.answer(answer, self._told(finished.record))

    def problem(self, finished: Finished) -> Problem:
        """The problem with the place in the body of the task, which gets the client's names in its document."""
        return bodies.placed(finished.problem or InternalError(), self.own)

    def events(self, begun: RequestRecord, told: Facts) -> Events:
        """A chunk for each delta; at the end one for each choice, the usage if it was asked for, and `[DONE]`."""
        said, body = self._told(begun), self.body
        seen: set[int] = set()

        def first(index: int) -> bool:
            known = index in seen
            seen.add(index)
            return not known

        def delta(one: Delta) -> Event:
            return Event(body.chunk(said, [Said(one.index, one.text, first(one.index))]))

        def end(finished: Finished) -> Sequence[Event]:
            if finished.answer is None:
                return (fault(self.problem(finished)),)
            parts = []
            for at, (text, why) in enumerate(_written(finished.answer, None)):
                parts += [Said(at, text, first=True)] if first(at) else []  # of which nothing was told on the way
                parts.append(Said(at, "", ended=why))
            chunks: list[object] = [body.chunk(said, [one]) for one in parts]
            options = body.stream_options if isinstance(body, WritingBody) else None
            if options is not None and options.include_usage:
                chunks.append(body.chunk(said, [], usage_of(finished.answer)))
            return [*map(Event, chunks), Event(Raw(b"[DONE]"))]

        def fault(problem: Problem) -> Event:
            return Event(problem_document(problem, body.names)[1])

        return Events(delta, end, fault)

    def _told(self, record: RequestRecord) -> Told:
        return Told(self.id, self.created, record.checkpoint or "")


def _content(one: Said) -> dict[str, str]:
    return {"content": one.text} if one.text else {}


def _written(answer: Answer, key: str | None) -> list[tuple[str, Ended]]:
    """Each text that was written, with why it ends. Outputs come as plain data, under the name of their task's."""
    outputs = [to_builtins(one) for one in answer.outputs]
    texts = [str(next(iter(one.values())) if key is None else one[key]) for one in outputs]
    return [(text, ended(how.finish_reason)) for text, how in zip(texts, answer.generation, strict=True)]


def _packed(vector: Sequence[float]) -> str:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint of OpenAI's interface that answers bodies; one that can stream has a type of its chunks."""

    name: str
    summary: str
    body: type[OpenAIBody]
    answer: type[Struct]
    chunk: type[Struct] | None = None


ENDPOINTS: dict[str, Endpoint] = {
    "/v1/chat/completions": Endpoint(
        "chat", "Answer a conversation within a latency budget", ChatBody, ChatCompletion, ChatChunk
    ),
    "/v1/completions": Endpoint(
        "completions", "Continue a text within a latency budget", CompletionBody, Completion, TextChunk
    ),
    "/v1/embeddings": Endpoint(
        "embeddings", "Turn texts into vectors within a latency budget", EmbeddingsBody, Embeddings
    ),
}
"""The endpoints by path."""
