"""The contract for machines: an OpenAPI 3.1 document made from the models that validate the bodies."""

from __future__ import annotations

from functools import cache

from pydantic.json_schema import models_json_schema

from gateway import problems, terms
from gateway.catalog import Tier
from gateway.policy import Reason
from gateway.wire import ClassifyBody, RouteBody

_PROBLEMS: dict[str, type[problems.Problem]] = {
    "404": problems.UnknownCheckpoint,
    "413": problems.InputTooLong,
    "422": problems.InvalidRequest,
    "429": problems.Overloaded,
    "500": problems.InferenceFailed,
    "503": problems.CheckpointUnavailable,
    "504": problems.DeadlineExceeded,
}

_REQUEST_HEADERS: tuple[tuple[str, dict[str, object], str], ...] = (
    (
        terms.BUDGET,
        {"type": "number", "exclusiveMinimum": 0, "maximum": terms.MAX_BUDGET_MS},
        "the latency budget of the whole request in milliseconds, from its arrival",
    ),
    (
        terms.PERCENTILE,
        {"type": "number", "minimum": 50, "maximum": 99.9, "default": terms.DEFAULT_PERCENTILE},
        "how sure the gateway must be to make the budget, in percent",
    ),
    (
        terms.MODE,
        {"enum": ["best-effort", "strict"], "default": "best-effort"},
        "best-effort always answers; strict refuses what cannot be in time and stops at the deadline",
    ),
    (terms.MIN_TIER, {"enum": list(Tier)}, "never answer with less than this tier"),
    (terms.CHECKPOINT, {"type": "string"}, "pin one checkpoint; the budget then only decides whether to admit"),
    (terms.REQUEST_ID, {"type": "string", "maxLength": 128}, "continued; made where absent"),
    (terms.TRACEPARENT, {"type": "string"}, "W3C trace context"),
)

_RESPONSE_HEADERS: tuple[tuple[str, dict[str, object]], ...] = (
    (terms.REQUEST_ID, {"type": "string"}),
    (terms.CHECKPOINT, {"type": "string"}),
    ("X-Tier", {"enum": list(Tier)}),
    ("X-Route-Reason", {"enum": list(Reason)}),
    (terms.BUDGET, {"type": "number"}),
    ("X-Predicted-Latency-Ms", {"type": "number"}),
    ("X-SLA-Met", {"enum": ["true", "false"]}),
    ("X-Input-Truncated", {"enum": ["true"]}),
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


@cache
def openapi_document() -> dict[str, object]:
    """The whole document; it is the same for every catalog."""
    inputs: list[tuple[type[ClassifyBody] | type[RouteBody], str]] = [
        (ClassifyBody, "validation"),
        (RouteBody, "validation"),
    ]
    _, schemas = models_json_schema(inputs, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Punctual", "version": "1", "description": "An inference gateway that answers on time."},
        "paths": {
            "/classify": {"post": _post("Classify texts within a latency budget", "ClassifyBody", _outputs())},
            "/route": {"post": _post("What would be decided and why; nothing is run", "RouteBody", {"type": "object"})},
            "/checkpoints": {"get": _get("The catalog as served")},
            "/healthz": {"get": _get("Alive")},
            "/readyz": {"get": _get("Ready: every checkpoint has a replica; else 503")},
            "/metrics": {"get": _get("Prometheus metrics of every process", "text/plain")},
        },
        "components": {"schemas": {**schemas["$defs"], "LabelScore": _LABEL_SCORE, "Problem": _PROBLEM}},
    }


def _outputs() -> dict[str, object]:
    return {"type": "array", "items": {"type": "array", "items": {"$ref": "#/components/schemas/LabelScore"}}}


def _get(summary: str, media_type: str = "application/json") -> dict[str, object]:
    return {"summary": summary, "responses": {"200": {"description": summary, "content": {media_type: {}}}}}


def _post(summary: str, body: str, answer: dict[str, object]) -> dict[str, object]:
    headers = [
        {"name": name, "in": "header", "schema": schema, "description": text} for name, schema, text in _REQUEST_HEADERS
    ]
    details = {"name": "details", "in": "query", "schema": {"enum": ["true"]}, "description": "answer an object"}
    answered = {name: {"schema": schema} for name, schema in _RESPONSE_HEADERS}
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    refusals: dict[str, object] = {
        status: {"description": kind.title, "content": problem} for status, kind in _PROBLEMS.items()
    }
    bad = {"description": "Not JSON, or a malformed header, which is named", "content": problem}
    reply = {"description": summary, "headers": answered, "content": {"application/json": {"schema": answer}}}
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}}
    return {
        "summary": summary,
        "parameters": [*headers, details],
        "requestBody": {"required": True, "content": content},
        "responses": {"200": reply, "400": bad, **refusals},
    }
