"""The JSON bodies of the contract: parsed and validated once on the way in, encoded once on the way out.

Pydantic models stay at this edge; further in there are msgspec structs and frozen dataclasses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec
from pydantic import BaseModel, Field, JsonValue, ValidationError

from gateway.catalogs.catalog import Limits
from gateway.model.errors import InputTooLong, InvalidRequest
from gateway.tasks.base import INPUTS_TAGS, RequestBody, Strict, Task

Body = TypeVar("Body", bound=BaseModel)

MOST_FAULTS = 16
"""Faults of a body that a problem lists."""

MOST_CHARACTERS_OF_A_NAME = 64
"""Characters of a client's field name that a problem repeats."""


class RouteBody(Strict):
    """The body of `POST /route`: a task, and what its own endpoint would be sent."""

    task: str = Field(description="the name of a task, which is that of its endpoint")
    inputs: JsonValue = Field(description="those of the task's own body, such as one text, or a list of them")
    parameters: dict[str, JsonValue] | None = Field(default=None, description="those of the task's own body")


def parse(body: bytes, model: type[Body], limits: Limits) -> Body:
    """Validates a body. Raises InputTooLong (413), or InvalidRequest: 400 if it is not JSON, else 422."""
    if len(body) > limits.max_body_bytes:
        raise body_too_long(limits.max_body_bytes)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error) from None


def body_too_long(limit_bytes: int) -> InputTooLong:
    """Makes the 413 of a body over the limit; raised before all of it is read."""
    return InputTooLong(f"the body may have {limit_bytes} bytes", {"limit": limit_bytes, "unit": "bytes"})


def limited(texts: Sequence[str], limits: Limits) -> tuple[str, ...]:
    """Returns the texts if their number and total length are allowed. Raises InputTooLong or InvalidRequest."""
    listed = tuple(texts)
    if not listed:
        raise InvalidRequest(
            "inputs: must hold at least one text", [{"field": "inputs", "message": "must not be empty"}]
        )
    if len(listed) > limits.max_inputs:
        members = {"inputs": len(listed), "limit": limits.max_inputs, "unit": "inputs"}
        raise InputTooLong(f"inputs: may hold {limits.max_inputs} texts, got {len(listed)}", members)
    if (characters := sum(map(len, listed))) > limits.max_input_chars:
        members = {"characters": characters, "limit": limits.max_input_chars, "unit": "characters"}
        raise InputTooLong(f"inputs: may have {limits.max_input_chars} characters in all, got {characters}", members)
    return listed


def of_task(body: RouteBody, task: Task) -> RequestBody:
    """Converts the body of `POST /route` to that of its task's own endpoint. Raises InvalidRequest as that would."""
    try:
        return task.body.model_validate({"parameters": body.parameters, "inputs": body.inputs})
    except ValidationError as error:
        raise _invalid(error) from None


def encode(document: object) -> bytes:
    """Encodes JSON in UTF-8."""
    return msgspec.json.encode(document)


def _invalid(error: ValidationError) -> InvalidRequest:
    """Makes the problem that names each faulty field and what it must be; values are not repeated."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    if faults[0]["type"] == "json_invalid":
        return InvalidRequest("the body is not JSON in UTF-8", [{"message": faults[0]["msg"]}], malformed=True)
    errors = [{"field": _path(fault["loc"]), "message": fault["msg"]} for fault in faults[:MOST_FAULTS]]
    first = errors[0]
    return InvalidRequest(f"{first['field'] or 'body'}: {first['message']}", errors)


def _path(location: Sequence[int | str]) -> str:
    """Formats `('inputs', '(many)', 3)` as `inputs[3]`: the union's tag is no field.

    Names are the client's, and cut if long.
    """
    path = ""
    for at, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
        elif at != 1 or location[0] != "inputs" or part not in INPUTS_TAGS:
            name = part[:MOST_CHARACTERS_OF_A_NAME]
            path += f".{name}" if path else name
    return path
