"""The contract for machines: an OpenAPI 3.1 document made from the models that validate the bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, get_args

from pydantic.json_schema import models_json_schema

from gateway.api.bodies import RouteBody
from gateway.model import errors, request
from gateway.model.deadline import MAX_BUDGET_MS
from gateway.model.messages import FinishReason
from gateway.model.request import DEFAULT_PERCENTILE
from gateway.model.tier import Tier
from gateway.scheduling.policy import Reason, Refusal, Verdict
from gateway.tasks.classify import ClassifyBody
from gateway.tasks.summarize import SummarizeBody

_PROBLEMS: dict[str, type[errors.Problem]] = {
    "404": errors.UnknownCheckpoint,
    "413": errors.InputTooLong,
    "422": errors.InvalidRequest,
    "429": errors.Overloaded,
    "500": errors.InferenceFailed,
    "503": errors.CheckpointUnavailable,
    "504": errors.DeadlineExceeded,
}

_REQUEST_HEADERS: tuple[tuple[str, dict[str, object], str], ...] = (
    (
        request.BUDGET,
        {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_BUDGET_MS},
        "the latency budget of the whole request in milliseconds, from its arrival",
    ),
    (
        request.GRPC_TIMEOUT,
        {"type": "string", "pattern": "^[0-9]{1,8}[HMSmun]$"},
        "the budget as gRPC writes it, read where X-Latency-SLA-Ms is absent",
    ),
    (
        request.PERCENTILE,
        {"type": "number", "minimum": 50, "maximum": 99.9, "default": DEFAULT_PERCENTILE},
        "how sure the gateway must be to make the budget, in percent",
    ),
    (
        request.MODE,
        {"enum": ["best-effort", "strict"], "default": "best-effort"},
        "strict refuses only what cannot be in time, not even by its optimistic forecast, and stops at the deadline; "
        "best-effort answers late rather than not, but where too many wait that are late already",
    ),
    (request.MIN_TIER, {"enum": list(Tier)}, "never answer with less than this tier"),
    (request.CHECKPOINT, {"type": "string"}, "pin one checkpoint; the budget then only decides whether to admit"),
    (request.REQUEST_ID, {"type": "string", "maxLength": 128}, "continued; made where absent"),
    (request.TRACEPARENT, {"type": "string"}, "W3C trace context"),
)

_EVERYWHERE: tuple[tuple[str, dict[str, object]], ...] = ((request.REQUEST_ID, {"type": "string"}),)
_RESPONSE_HEADERS: tuple[tuple[str, dict[str, object]], ...] = (
    *_EVERYWHERE,
    (request.CHECKPOINT, {"type": "string"}),
    ("X-Tier", {"enum": list(Tier)}),
    ("X-Route-Reason", {"enum": list(Reason)}),
    (request.BUDGET, {"type": "number"}),
    ("X-Predicted-Latency-Ms", {"type": "number", "description": "the median forecast, from the arrival"}),
    ("X-Forecast-Quantile-Ms", {"type": "number", "description": "the forecast at the percentile, from the arrival"}),
    ("X-SLA-Met", {"enum": ["true", "false"]}),
    ("X-Input-Truncated", {"enum": ["true"]}),
    ("X-Finish-Reason", {"enum": list(get_args(FinishReason))}),
    ("Server-Timing", {"type": "string"}),
)

_LABEL_SCORE = {
    "type": "object",
    "required": ["label", "score"],
    "properties": {"label": {"type": "string"}, "score": {"type": "number"}},
}
_PROBLEM = {
    "type": "object",
    "required": ["type", "code", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "code": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}


_DETAILED: dict[str, Any] = {
    "type": "object",
    "required": ["outputs", "routing", "timings_ms", "input"],
    "properties": {
        "outputs": {"$ref": "#/components/schemas/Outputs"},
        "routing": {
            "type": "object",
            "properties": {
                "checkpoint": {"type": "string"},
                "tier": {"enum": list(Tier)},
                "reason": {"enum": list(Reason)},
                "budget_ms": {"type": "number"},
                "predicted_latency_ms": {"type": "number"},
                "forecast_quantile_ms": {"type": "number"},
                "sla_met": {"type": "boolean"},
                "attempts": {"type": "integer"},
                "batch_size": {"type": "integer"},
            },
        },
        "timings_ms": {"type": "object", "additionalProperties": {"type": "number"}},
        "input": {
            "type": "object",
            "properties": {
                "tokens": {"type": "integer"},
                "kept": {"type": "integer"},
                "truncated": {"type": "boolean"},
            },
        },
    },
}
_FORECAST = {
    "type": ["object", "null"],
    "description": "in milliseconds; null while no replica is up",
    "properties": {
        "queueing_delay": {"type": "number"},
        "service_time": {"type": "number"},
        "least": {"type": "number", "description": "optimistic: one answer in twenty comes sooner"},
        "latency": {"type": "number", "description": "the median"},
        "at_percentile": {"type": "number"},
        "at_percentile_idle": {"type": "number", "description": "the same with nothing queued"},
    },
}
_ROUTED: dict[str, Any] = {
    "type": "object",
    "required": ["checkpoint", "reason", "refusal", "price", "ceiling", "candidates"],
    "properties": {
        "task": {"type": "string"},
        "budget_ms": {"type": "number"},
        "percentile": {"type": "number"},
        "mode": {"enum": ["best-effort", "strict"]},
        "checkpoint": {"type": ["string", "null"]},
        "tier": {"enum": [*Tier, None]},
        "reason": {"enum": [*Reason, None]},
        "refusal": {"enum": [*Refusal, None]},
        "price": {"type": "number", "description": "the congestion price: points of quality a core-second"},
        "ceiling": {"type": ["number", "null"], "description": "the quality over which nothing is worth its price"},
        "retry_after_ms": {"type": ["number", "null"]},
        "min_feasible_ms": {"type": ["number", "null"]},
        "candidates": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["checkpoint", "verdict", "forecast_ms"],
                "properties": {
                    "checkpoint": {"type": "string"},
                    "tier": {"enum": list(Tier)},
                    "quality": {"type": "number", "description": "what orders the candidates"},
                    "worth": {"type": "number", "description": "points of quality, as the price counts them"},
                    "worth_after_price": {"type": ["number", "null"]},
                    "verdict": {"enum": list(Verdict)},
                    "cost_ms": {"type": ["number", "null"], "description": "core-milliseconds"},
                    "forecast_ms": _FORECAST,
                },
            },
        },
    },
}
_GENERATION = {
    "type": "object",
    "properties": {
        "finish_reason": {"enum": list(get_args(FinishReason))},
        "steps": {"type": "integer"},
        "tokens": {"type": "integer"},
        "beams": {"type": "integer"},
        "max_new_tokens": {"type": "integer"},
        "pieces": {"type": "integer"},
        "headroom_ms": {"type": "number"},
        "lead": {"type": "boolean"},
    },
}
_SUMMARIES = {
    "Summary": {"type": "object", "required": ["summary_text"], "properties": {"summary_text": {"type": "string"}}},
    "Summaries": {"type": "array", "items": {"$ref": "#/components/schemas/Summary"}},
    "DetailedSummaries": {
        "type": "object",
        "required": [*_DETAILED["required"], "generation"],
        "properties": {
            **_DETAILED["properties"],
            "outputs": {"$ref": "#/components/schemas/Summaries"},
            "generation": {"type": "array", "items": _GENERATION},
        },
    },
}
_OUTPUTS = {"type": "array", "items": {"type": "array", "items": {"$ref": "#/components/schemas/LabelScore"}}}
_DETAILS = {
    "name": "details",
    "in": "query",
    "schema": {"enum": ["true"]},
    "description": "answer an object with the routing, the timings and what became of the input beside the outputs",
}


@cache
def openapi_document() -> dict[str, object]:
    """The whole document; it is the same for every catalog."""
    inputs = [(body, "validation") for body in (ClassifyBody, SummarizeBody, RouteBody)]
    _, schemas = models_json_schema(inputs, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    own = {"LabelScore": _LABEL_SCORE, "Outputs": _OUTPUTS, "Detailed": _DETAILED, "Problem": _PROBLEM, **_SUMMARIES}
    own["Routed"] = _ROUTED
    ready = "Ready: every checkpoint has a replica"
    return {
        "openapi": "3.1.0",
        "info": {"title": "Punctual", "version": "1", "description": "An inference gateway that answers on time."},
        "paths": {
            "/": {"get": _get("The console: a page to try the gateway and to watch it", "text/html")},
            "/classify": {
                "post": _task("Classify texts within a latency budget", "ClassifyBody", "Outputs", "Detailed")
            },
            "/summarize": {
                "post": _task(
                    "Summarise texts within a latency budget", "SummarizeBody", "Summaries", "DetailedSummaries"
                )
            },
            "/route": {"post": _route()},
            "/checkpoints": {"get": _get("The catalog as served")},
            "/healthz": {"get": _get("Alive")},
            "/readyz": {"get": _get(ready, others={"503": _reply("Not ready: the checkpoints without one are named")})},
            "/metrics": {"get": _get("Prometheus metrics of every process", "text/plain")},
        },
        "components": {"schemas": {**schemas["$defs"], **own}},
    }


def _task(summary: str, body: str, *answers: str) -> dict[str, object]:
    either = {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in answers]}
    answer = _reply("The outputs, or an object with details", headers=_RESPONSE_HEADERS, schema=either)
    refusals = {status: _refusal(kind.title) for status, kind in _PROBLEMS.items()}
    return _post(summary, body, answer, refusals, [_DETAILS])


def _route() -> dict[str, object]:
    """Nothing is run, so it has the refusals of what is sent, and none of a run."""
    routed = {"$ref": "#/components/schemas/Routed"}
    answer = _reply("The decision, with every candidate and its forecast", schema=routed)
    refusals = {status: _refusal(_PROBLEMS[status].title) for status in ("404", "413", "422", "500")}
    return _post("What would be decided and why; nothing is run", "RouteBody", answer, refusals, [])


def _post(
    summary: str,
    body: str,
    answer: dict[str, object],
    refusals: dict[str, dict[str, object]],
    parameters: Sequence[Mapping[str, object]],
) -> dict[str, object]:
    headers = [
        {"name": name, "in": "header", "schema": schema, "description": text} for name, schema, text in _REQUEST_HEADERS
    ]
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}}
    return {
        "summary": summary,
        "parameters": [*headers, *parameters],
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": answer,
            "400": _refusal("Not JSON, or a malformed header, which is named"),
            "405": _refusal(errors.MethodNotAllowed.title),
            **refusals,
        },
    }


def _get(
    summary: str, media_type: str = "application/json", others: dict[str, dict[str, object]] | None = None
) -> dict[str, object]:
    refusals = {"405": _refusal(errors.MethodNotAllowed.title), "500": _refusal(errors.InternalError.title)}
    return {"summary": summary, "responses": {"200": _reply(summary, media_type), **(others or {}), **refusals}}


def _reply(
    description: str,
    media_type: str = "application/json",
    headers: Sequence[tuple[str, dict[str, object]]] = _EVERYWHERE,
    schema: Mapping[str, object] | None = None,
) -> dict[str, object]:
    content = {media_type: {"schema": schema} if schema else {}}
    sent = {name: {"schema": kind} for name, kind in headers}
    return {"description": description, "headers": sent, "content": content}


def _refusal(description: str) -> dict[str, object]:
    return _reply(description, "application/problem+json", schema={"$ref": "#/components/schemas/Problem"})
