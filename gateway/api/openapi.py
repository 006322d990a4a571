"""The contract for machines: an OpenAPI 3.1 document generated from the types that the gateway reads and answers with.

Bodies come from the pydantic models of the tasks, answers from the structs in `responses`, problems from the error
classes. It knows no task by name: one that is registered has its operation here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Annotated, Any, Literal, get_args, get_type_hints

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct
from msgspec.json import schema_components
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from gateway.advising.advice import Advice
from gateway.advising.knowledge import knowledge
from gateway.advising.situation import Situation
from gateway.api import openai, responses
from gateway.api.bodies import RouteBody, encode
from gateway.api.kept import KeptFile
from gateway.api.responses import FIRST_MET, OUTCOME
from gateway.api.streaming import EVENT_STREAM
from gateway.catalogs.catalog import CatalogEntry
from gateway.model import errors, request
from gateway.model.deadline import MAX_BUDGET_MS, MIN_BUDGET_MS
from gateway.model.errors import Problem
from gateway.model.manifest import SourceOf
from gateway.model.messages import FinishReason
from gateway.model.outcome import Outcome
from gateway.model.request import DEFAULT_PERCENTILE
from gateway.model.tier import Tier
from gateway.scheduling.policy import Reason
from gateway.tasks.base import Task

Json = dict[str, Any]
"""A part of the document."""

ALWAYS = (
    errors.MethodNotAllowed,
    errors.UnknownHost,
    errors.RequestTimeout,
    errors.HeadTooLarge,
    errors.MethodNotImplemented,
    errors.VersionNotSupported,
    errors.InternalError,
    errors.TooManyConnections,
    errors.Starting,
    errors.Stopping,
)
READING = (
    errors.InvalidRequest,
    errors.UnknownTask,
    errors.UnknownCheckpoint,
    errors.UnsupportedEncoding,
    errors.InputTooLong,
)
RUNNING = (
    errors.BudgetInfeasible,
    errors.Overloaded,
    errors.InferenceFailed,
    errors.CheckpointUnavailable,
    errors.DeadlineExceeded,
)
"""The problems of every path, those of paths that read a request, and those of paths that run it."""

_INFO = {
    "title": "Punctual",
    "version": "1",
    "summary": "An inference gateway that answers on time.",
    "description": "One latency budget travels with a request, from the header to the answer.",
    "contact": {"name": "Punctual"},
    "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
}
_TAGS = {
    "tasks": "Answers within a latency budget.",
    "openai": "OpenAI's interface: the same answers, for clients of that.",
    "routing": "What would be decided, and between which checkpoints.",
    "operating": "The state of the gateway, for probes, scrapes and people.",
}
_HOW = f"The best checkpoint whose forecast fits the budget of `{request.BUDGET}` answers."
_HOW_FIXED = (
    f"Answers of different checkpoints do not compare, so the one that `{request.CHECKPOINT}` pins answers, else the "
    f"catalog's default one. The budget of `{request.BUDGET}` decides whether the request is admitted."
)
_BODY = (
    "The body is the Hugging Face Inference API's, so its clients work unchanged. With `details=true` the outputs come "
    "in an object, beside the decision and the time that each part took."
)
_EVENTS = (
    "Server-sent events, where the body says `stream`, or where `Accept` has this type and no JSON. An event has the "
    "next piece of an input's text that can no longer change, with the input's index. The last one is `done`, whose "
    "data is the object with details and `finish_reason`, or `error`, whose data is a problem. Headers have what is "
    "known at the first event."
)
_EVENTS_EXAMPLE = (
    'data: {"index":0,"text":"The night train"}\n\ndata: {"index":0,"text":" is to run again."}\n\n'
    'event: done\ndata: {"outputs":[{"summary_text":"The night train is to run again."}],"finish_reason":"stop"}\n\n'
)
_WHY = "The decision on such a request, with every candidate, its forecast and its verdict. Nothing is run."
_ADVICE = (
    "The questions of the usual guide to choosing transformers, answered for a situation: every checkpoint that is "
    "served, and public ones, with forecasts for this host, memory, licence, why it is in or out, and the catalog "
    "entry to paste. A client that takes HTML gets the page that asks for it."
)
_STRING: Json = {"type": "string"}
_NUMBER: Json = {"type": "number"}
_OBJECT: Json = {"type": "object"}
_JSON = "application/json"

_GRPC_TIMEOUT = (
    r"^(([1-9]|10)M|([1-9][0-9]?|[1-5][0-9]{2}|600)S|([1-9][0-9]{0,4}|[1-5][0-9]{5}|600000)m|[1-9][0-9]{0,7}[un])$"
)
"""What is written without leading zeroes of the budgets that a client may send."""

_SENT: Mapping[str, tuple[Json, str]] = {
    request.BUDGET: (
        {**_NUMBER, "minimum": MIN_BUDGET_MS, "maximum": MAX_BUDGET_MS},
        "The latency budget of the whole request in milliseconds, from its arrival.",
    ),
    request.FIRST_BUDGET: (
        {**_NUMBER, "minimum": MIN_BUDGET_MS, "maximum": MAX_BUDGET_MS},
        "Of an answer that is streamed, the budget for its first text in milliseconds, from the arrival. It is ignored "
        "for any other answer, as the details say.",
    ),
    request.GRPC_TIMEOUT: (
        {**_STRING, "pattern": _GRPC_TIMEOUT},
        f"The budget as gRPC writes it. It is read where {request.BUDGET} is absent.",
    ),
    request.PERCENTILE: (
        {**_NUMBER, "minimum": 50, "maximum": 99.9, "default": DEFAULT_PERCENTILE},
        "How sure the gateway must be to make the budget, in percent.",
    ),
    request.MODE: (
        {"enum": ["best-effort", "strict"], "default": "best-effort"},
        "`best-effort` answers late rather than not, unless too many late requests wait already. `strict` refuses a "
        "request that would be late even by its optimistic forecast, and stops at the deadline.",
    ),
    request.MIN_TIER: ({"enum": list(Tier)}, "Never answer with less than this tier."),
    request.CHECKPOINT: (
        {**_STRING, "pattern": "^[A-Za-z0-9._-]{1,128}$"},
        "Pin one checkpoint. The budget then only decides whether to admit.",
    ),
    request.REQUEST_ID: (_STRING, "Continued. One is made where it is absent or cannot be used."),
    request.TRACEPARENT: (_STRING, "W3C trace context. One that cannot be read is dropped, and a new trace begins."),
    request.TRACESTATE: (_STRING, "It goes with a valid traceparent."),
}
ANSWERED: Mapping[str, tuple[Json, str]] = {
    request.REQUEST_ID: (_STRING, "The request's own id, or the one that was made for it. On every answer."),
    request.BUDGET: (_NUMBER, "The budget in effect, in milliseconds. Once it is known, on refusals too."),
    request.FIRST_BUDGET: (_NUMBER, "The budget for the first text, of an answer that is streamed and has one."),
    FIRST_MET: ({"enum": ["true", "false"]}, "Whether the first text came within the budget for it."),
    request.CHECKPOINT: (_STRING, "The checkpoint. Once a decision was made, as are the others."),
    "X-Tier": ({"enum": list(Tier)}, "The tier of the checkpoint."),
    "X-Route-Reason": ({"enum": list(Reason)}, "Why this checkpoint was chosen."),
    "X-SLA-Met": ({"enum": ["true", "false"]}, "Whether the checkpoint's answer came within the budget."),
    OUTCOME: ({"enum": list(Outcome)}, "How the request ended, as the metrics count it."),
    "X-Predicted-Latency-Ms": (_NUMBER, "The median forecast, from the arrival."),
    "X-Forecast-Quantile-Ms": (_NUMBER, "The forecast at the percentile that was asked for, from the arrival."),
    "X-Input-Truncated": ({"enum": ["true"]}, "An input was cut, or not read to its end."),
    "X-Finish-Reason": ({"enum": list(get_args(FinishReason))}, "Why a text ended: the worst reason of several."),
    "Server-Timing": (_STRING, "The spans `route`, `queue`, `infer`, `total` and `predicted`, in milliseconds."),
    "Allow": (_STRING, "The methods that the path has."),
    "Accept-Encoding": (_STRING, "The encodings of a body that are read."),
    "Retry-After": ({"type": "integer"}, "Seconds after which to try again."),
}
_OF_STATUS = {405: ("Allow",), 415: ("Accept-Encoding",), 429: ("Retry-After",), 503: ("Retry-After",)}
_ON_TASKS = tuple(name for name in ANSWERED if name not in ("Allow", "Accept-Encoding", "Retry-After"))
_ON_ALL = (request.REQUEST_ID,)
_UNDECIDED = (request.REQUEST_ID, OUTCOME)
_BEFORE_A_DECISION = (400, 405, 408, 415, 421, 431, 501, 505)


def _json(name: str) -> tuple[str, Json]:
    return _JSON, _ref("schemas", name)


def _ref(section: str, name: str) -> Json:
    return {"$ref": f"#/components/{section}/{name}"}


_GETS: Mapping[str, tuple[str, str, str, str, str, Json]] = {
    "/checkpoints": (
        "checkpoints",
        "routing",
        "The catalog as served",
        "Every checkpoint with its catalog entry, provenance, verification, latency profile and live load; "
        "and those that are not served yet, with what they wait for.",
        *_json("Checkpoints"),
    ),
    "/": ("console", "operating", "The console", "A page to try the gateway and to watch it.", "text/html", _STRING),
    "/healthz": ("alive", "operating", "Alive", "The process answers.", *_json("Alive")),
    "/readyz": ("ready", "operating", "Ready", "Every task has a replica that is ready.", *_json("Ready")),
    "/metrics": ("metrics", "operating", "Metrics", "Prometheus text of every process.", "text/plain", _STRING),
    "/openapi.json": ("contract", "operating", "This document", "The interface for machines.", _JSON, _OBJECT),
}
"""The paths under GET: operation, tag, summary, description, media type and schema."""

_V1 = (
    "The interface of OpenAI, answered by the tasks. `model` names a checkpoint, a tier, a task or "
    f"`{openai.ANY_MODEL}`. Errors have OpenAI's form; what does not validate, and a text that is too long, is a 400."
)

_DETAILS = {
    "name": "details",
    "in": "query",
    "schema": {"enum": ["true"]},
    "description": "Answer with an object that has the decision and the time of each part beside the outputs.",
}


@lru_cache(maxsize=2)
def document_file(tasks: tuple[Task, ...]) -> KeptFile:
    """The document for these tasks as JSON. It is made once, since that takes as long as hundreds of requests."""
    return KeptFile.of(encode(openapi_document(tasks)), _JSON, {})


def openapi_document(tasks: Collection[Task]) -> Json:
    """The document for these tasks. It is the same for every catalog."""
    paths = {
        **{f"/{task.name}": {"post": _task(task)} for task in tasks},
        **{path: {"post": _openai(endpoint)} for path, endpoint in openai.ENDPOINTS.items()},
        "/v1/models": {"get": _models()},
        "/route": {"post": _route()},
        "/advise": {"get": _advise()},
        **{path: {"get": _get(*row)} for path, row in _GETS.items()},
    }
    unready = paths["/readyz"]["get"]["responses"]["503"]
    unready["description"] = (
        f"Not ready: a task has no replica. The checkpoints without one are named. {unready['description']}"
    )
    unready["content"][_JSON] = {"schema": _ref("schemas", "Ready")}
    return {
        "openapi": "3.1.0",
        "info": _INFO,
        "servers": [{"url": "/", "description": "The gateway that serves this document."}],
        "security": [],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": _schemas(tasks),
            "parameters": {name: _parameter(name) for name in _SENT},
            "headers": {name: _header(name, *told) for name, told in _answered(tasks).items()},
        },
    }


def _task(task: Task) -> Json:
    name = _title(task)
    either = {"oneOf": [*map(partial(_ref, "schemas"), _documents(task)), _ref("schemas", f"{name}Details")]}
    facts = [fact.header for fact in task.facts]
    answer = _reply("The outputs, or an object with details.", _JSON, either, (*_ON_TASKS, *facts))
    if task.streams is not None:
        answer["content"][EVENT_STREAM] = {"schema": _STRING | {"description": _EVENTS}, "example": _EVENTS_EXAMPLE}
    replies = {"200": answer, **_refusals((*ALWAYS, *READING, *RUNNING), _ON_TASKS)}
    how = _HOW_FIXED if task.fixed_checkpoint else _HOW
    return _operation(task.name, "tasks", task.summary, f"{how} {_BODY}", replies) | _asked(task.body, _DETAILS)


def _openai(endpoint: openai.Endpoint) -> Json:
    answer = _reply("The answer.", *_json(endpoint.answer.__name__), _ON_TASKS)
    if endpoint.chunk is not None:
        answer["content"]["text/event-stream"] = {"schema": _ref("schemas", endpoint.chunk.__name__)}
    replies = {"200": answer, **_openai_refusals((*ALWAYS, *READING, *RUNNING), _ON_TASKS)}
    return _operation(endpoint.name, "openai", endpoint.summary, _V1, replies) | _asked(endpoint.body)


def _models() -> Json:
    replies = {"200": _reply("The models.", *_json("Models")), **_openai_refusals(ALWAYS)}
    about = _operation("models", "openai", "What a `model` may name", "Checkpoints, tiers and tasks.", replies)
    return about | {"parameters": [_ref("parameters", request.REQUEST_ID)]}


def _openai_refusals(kinds: Sequence[type[Problem]], sent: Sequence[str] = _ON_ALL) -> Json:
    """The replies that are problems of these kinds, by status, in OpenAI's form."""
    replies = _refusals([kind for kind in kinds if kind not in (errors.InvalidRequest, errors.InputTooLong)], sent)
    if errors.InvalidRequest in kinds:  # or a text that the checkpoint finds too long, once it is decided
        replies["400"] = _reply("The request is not valid, or too long.", _JSON, {}, sent)
    for reply in replies.values():
        reply["content"] = {_JSON: {"schema": _ref("schemas", "OpenAIProblem")}}
    return replies


def _route() -> Json:
    answer = _reply("The decision, with every candidate and its forecast.", *_json("RouteDecision"))
    replies = {"200": answer, **_refusals((*ALWAYS, *READING))}
    return _operation("route", "routing", "What would be decided and why", _WHY, replies) | _asked(RouteBody)


def _advise() -> Json:
    """The operation of advice: a situation in the query, and JSON, or the page for a client that takes HTML."""
    answer = _reply("The checklist, and the checkpoints judged and ranked.", *_json("Advice"))
    answer["content"]["text/html"] = {"schema": _STRING}
    properties = Situation.model_json_schema()["properties"]
    properties["task"]["enum"] = list(knowledge().tasks)
    sent = [
        {
            "name": name,
            "in": "query",
            "description": schema.pop("description"),
            "schema": schema,
            **({"style": "form", "explode": False} if schema.get("type") == "array" else {}),
        }
        for name, schema in properties.items()
    ]
    summary = "Which checkpoint to serve, and why"
    described = f"{_ADVICE} Without a `task` the first that is served is meant."
    replies = {"200": answer, **_refusals((*ALWAYS, errors.InvalidRequest))}
    found = _operation("advise", "routing", summary, described, replies)
    return found | {"parameters": [_ref("parameters", request.REQUEST_ID), *sent]}


def _get(name: str, tag: str, summary: str, description: str, media_type: str, schema: Json) -> Json:
    replies = {"200": _reply(description, media_type, schema), **_refusals(ALWAYS)}
    parameters = [_ref("parameters", request.REQUEST_ID)]
    return _operation(name, tag, summary, description, replies) | {"parameters": parameters}


def _operation(name: str, tag: str, summary: str, description: str, replies: Json) -> Json:
    described = {"operationId": name, "tags": [tag], "summary": summary, "description": description}
    return described | {"responses": dict(sorted(replies.items()))}


def _asked(body: type[BaseModel], *parameters: Json) -> Json:
    """What is sent with a request that has a body: every header that is read, and the body."""
    content = {_JSON: {"schema": _ref("schemas", body.__name__)}}
    sent = [_ref("parameters", name) for name in _SENT]
    return {"parameters": [*sent, *parameters], "requestBody": {"required": True, "content": content}}


def _refusals(kinds: Sequence[type[Problem]], sent: Sequence[str] = _ON_ALL) -> Json:
    """The replies that are problems of these kinds, by status."""
    replies = {}
    for status in {status for kind in kinds for status in _statuses(kind)}:
        these = [kind for kind in kinds if status in _statuses(kind)]
        schemas = [_ref("schemas", kind.__name__) for kind in these]
        schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
        description = " ".join(f"{kind.title}." for kind in these)
        early = [name for name in sent if name in _UNDECIDED]
        names = (*(early if status in _BEFORE_A_DECISION else sent), *_OF_STATUS.get(status, ()))
        replies[str(status)] = _reply(description, "application/problem+json", schema, names)
    return replies


def _reply(description: str, media_type: str, schema: Json, sent: Iterable[str] = _ON_ALL) -> Json:
    listed = {name: _ref("headers", name) for name in sent}
    return {"description": description, "headers": listed, "content": {media_type: {"schema": schema}}}


def _parameter(name: str) -> Json:
    schema, description = _SENT[name]
    return {"name": name, "in": "header", "schema": schema, "description": description}


_OF_TYPE: Mapping[type, Json] = {str: _STRING, int: {"type": "integer"}}


def _answered(tasks: Collection[Task]) -> Mapping[str, tuple[Json, str]]:
    """The schema and description of every response header: the contract's own, and those of tasks that tell facts."""
    facts = {fact.header: fact for task in tasks for fact in task.facts}
    return {**ANSWERED, **{name: (_OF_TYPE[fact.type], fact.description) for name, fact in facts.items()}}


def _header(name: str, schema: Json, description: str) -> Json:
    return {"schema": schema, "description": description, "required": name in _ON_ALL}


def _schemas(tasks: Collection[Task]) -> Json:
    """Every schema by its name: the bodies and what they are made of, the answers, the problems."""
    read: list[tuple[type[BaseModel], JsonSchemaMode]] = [(task.body, "validation") for task in tasks]
    read += [(endpoint.body, "validation") for endpoint in openai.ENDPOINTS.values()]
    read += [(RouteBody, "validation"), (CatalogEntry, "serialization"), (SourceOf, "serialization")]
    template = "#/components/schemas/{name}"
    _, models = models_json_schema(read, ref_template=template.replace("name", "model"))
    definitions = models["$defs"]
    definitions["CatalogEntry"].pop("additionalProperties")  # an entry that is shown has more beside it
    shown = [(task, definitions[task.body.__name__].get("examples", [])) for task in tasks]
    definitions["RouteBody"]["examples"] = [
        {"task": task.name, **body} for task, bodies in shown for body in bodies[:1]
    ]
    outputs = {name: kind for task in tasks for name, kind in _documents(task).items()}
    answers = [
        *outputs.values(),
        *map(_details, tasks),
        *(responses.RouteDecision, responses.Checkpoints, responses.CheckpointVariant, responses.CheckpointState),
        *(responses.Alive, responses.Ready, openai.Models, openai.OpenAIProblem, Advice),
        *(one for endpoint in openai.ENDPOINTS.values() for one in (endpoint.answer, endpoint.chunk) if one),
        *map(_problem, (*ALWAYS, *READING, *RUNNING)),
    ]
    schemas, structs = schema_components(answers, schema_hook=_custom, ref_template=template)
    return {**structs, **definitions, **dict(zip(outputs, schemas, strict=False)), "Checkpoint": _checkpoint()}


def _documents(task: Task) -> dict[str, Any]:
    """The types of a task's answers without details, by the names of their schemas."""
    name = f"{_title(task)}Outputs"
    if task.document is None:
        return {name: list[task.output]}  # type: ignore[name-defined]
    return {f"{name}{nth}": kind for nth, kind in enumerate(task.document.types, start=1)}


def _custom(kind: type) -> Json:
    """The schema of a type that is not msgspec's own: a pydantic model, or a checkpoint."""
    return _ref("schemas", kind.__name__)


def _checkpoint() -> Json:
    parts = (CatalogEntry, responses.CheckpointVariant, responses.CheckpointState)
    listed = [_ref("schemas", part.__name__) for part in parts]
    return {"description": responses.Checkpoint.__doc__, "allOf": listed}


def _details(task: Task) -> type[Struct]:
    """The details of a task's answers, their outputs being of its type."""
    base = responses.WrittenDetails if task.finish_reasons else responses.Details
    fields: list[Any] = [("outputs", list[task.output])]  # type: ignore[name-defined]
    if task.windowed:
        fields.append(("input", responses.WindowedInputDetails))
    if task.facts:
        members = [(fact.name, Annotated[fact.type, Meta(description=fact.description)]) for fact in task.facts]
        about = {"__doc__": "What the task tells of the checkpoint that answered."}
        fields.append(("facts", defstruct(f"{_title(task)}Facts", members, namespace=about)))
    return defstruct(f"{_title(task)}Details", fields, bases=(base,), namespace={"__doc__": base.__doc__})


def _problem(kind: type[Problem]) -> type[Struct]:
    """The document of a kind of problem: the standard members, then its own."""
    optional = kind.Members.__optional_keys__
    own = sorted(get_type_hints(kind.Members).items(), key=lambda one: one[0] in optional)
    fields: list[Any] = [
        ("type", Literal[kind.urn()]),
        ("code", Literal[kind.code]),
        ("title", Literal[kind.title]),
        ("status", Literal[_statuses(kind)]),
        ("detail", str),
        *((name, type_ | UnsetType, UNSET) if name in optional else (name, type_) for name, type_ in own),
    ]
    return defstruct(kind.__name__, fields, namespace={"__doc__": kind.__doc__})


def _statuses(kind: type[Problem]) -> tuple[int, ...]:
    return (400, 422) if kind is errors.InvalidRequest else (kind.status,)


def _title(task: Task) -> str:
    return task.name.title().replace("-", "")
