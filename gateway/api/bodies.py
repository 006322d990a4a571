"""The JSON bodies of the contract: parsed and validated once on the way in, encoded once on the way out.

Pydantic models stay at this edge; further in there are msgspec structs and frozen dataclasses.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Container, Mapping, Sequence
from itertools import islice
from typing import Any, NoReturn, TypeVar

import msgspec
from pydantic import BaseModel, Field, JsonValue, ValidationError
from pydantic_core import ErrorDetails, from_json

from gateway.catalogs.catalog import Limits
from gateway.model.errors import InputTooLong, InvalidRequest, no_text
from gateway.tasks.base import INPUTS_TAGS, MOST_CHARACTERS_OF_A_NAME, RequestBody, Strict, Task

Body = TypeVar("Body", bound=BaseModel)

MOST_FAULTS = 16
"""Faults of a body that a problem lists."""

MOST_IGNORED = 64
"""Fields without effect that an answer lists."""

_HALF_A_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
_TAGGED = (1, 3)
"""Where the place of a fault may name a union's tag: that of `inputs`, and of one of a list of them."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_LOOKS = (
    (re.compile(rb"\xff\xfe|\xfe\xff|([^\0]\0){2}|(\0[^\0]){2}"), "it looks like UTF-16"),
    (re.compile(rb"\x1f\x8b"), "it looks like gzip, which Content-Encoding has to say"),
    (re.compile(rb"\x28\xb5\x2f\xfd"), "it looks like zstd, which Content-Encoding has to say"),
    (re.compile(rb"\s*[\[{]\s*'"), "it looks like a Python literal; JSON has double quotes"),
    (re.compile(rb"[A-Za-z_]+="), "it looks like a form"),
)
"""What is sent in place of JSON, by how it begins."""


class RouteBody(Strict):
    """The body of `POST /route`: a task, and what its own endpoint would be sent."""

    task: str = Field(description="the name of a task, which is that of its endpoint")
    inputs: JsonValue = Field(description="those of the task's own body, such as one text, or a list of them")
    parameters: dict[str, JsonValue] | None = Field(default=None, description="those of the task's own body")
    options: dict[str, JsonValue] | None = Field(default=None, description="likewise; without effect")


def parse(body: bytes, model: type[Body], limits: Limits) -> Body:
    """Validates a body. Raises InputTooLong (413), or InvalidRequest: 400 if it is not JSON, else 422.

    A byte-order mark of UTF-8 is skipped, half of a surrogate pair is read as U+FFFD, a whole number may be written
    `60.0`, and an unknown field that is null counts as absent: clients write those that nobody has set.
    """
    if len(body) > limits.max_body_bytes:
        raise body_too_long(limits.max_body_bytes)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        fault = error
    if not _is_unreadable(fault):
        return validated(from_json(body), model) if _mendable(fault) else _refuse(fault)
    if body.startswith(BOM_UTF8) or _HALF_A_PAIR.search(body):
        return validated(_read_again(body, fault), model)
    return _refuse(fault, body)


def from_query(query: Mapping[str, str], model: type[Body]) -> Body:
    """Validates the parameters of a query; empty ones count as absent. Raises InvalidRequest."""
    return validated({name: value for name, value in query.items() if value}, model)


def has_parameter(body: bytes, name: str) -> bool:
    """True if the body is JSON whose `parameters` have a member of that name.

    Bodies without the name anywhere, which are nearly all, are not read for it.
    """
    if name.encode() not in body:
        return False
    try:
        document = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return False  # what is wrong with it is said where it is validated
    parameters = document.get("parameters") if isinstance(document, dict) else None
    return isinstance(parameters, dict) and name in parameters


def body_too_long(limit_bytes: int) -> InputTooLong:
    """Makes the 413 of a body over the limit; raised before all of it is read."""
    return InputTooLong(f"the body may have {limit_bytes} bytes", {"limit": limit_bytes, "unit": "bytes"})


def limited(texts: Sequence[str], limits: Limits) -> tuple[str, ...]:
    """Returns the texts if their number and total length are allowed. Raises InputTooLong or InvalidRequest."""
    listed = tuple(texts)
    if not listed:
        raise no_text()
    if len(listed) > limits.max_inputs:
        members = {"inputs": len(listed), "limit": limits.max_inputs, "unit": "inputs"}
        raise InputTooLong(f"inputs: may hold {limits.max_inputs} texts, got {len(listed)}", members)
    if (characters := sum(map(len, listed))) > limits.max_input_chars:
        members = {"characters": characters, "limit": limits.max_input_chars, "unit": "characters"}
        raise InputTooLong(f"inputs: may have {limits.max_input_chars} characters in all, got {characters}", members)
    return listed


def of_task(body: RouteBody, task: Task) -> RequestBody:
    """Converts the body of `POST /route` to that of its task's own endpoint. Raises InvalidRequest as that would."""
    sent = {name: getattr(body, name) for name in ("inputs", "parameters", "options") if name in body.model_fields_set}
    return validated(sent, task.body)


def ignored(body: RequestBody) -> list[str]:
    """What was sent and changes nothing, by its path in the body, as far as `MOST_IGNORED`."""
    return list(islice(body.ignored(), MOST_IGNORED))


def encode(document: object) -> bytes:
    """Encodes JSON in UTF-8."""
    return msgspec.json.encode(document)


def validated(document: object, model: type[Body]) -> Body:
    """Validates a document in Python's types, in which whole numbers may be floats. Raises InvalidRequest."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        if not _mendable(error):
            raise _invalid(error) from None
        unknown = _unknown_nulls(error)
    try:
        return model.model_validate(_mended(document, unknown))
    except ValidationError as error:
        raise _invalid(error) from None


def _refuse(error: ValidationError, body: bytes = b"") -> NoReturn:
    raise _invalid(error, body) from None


def _is_unreadable(error: ValidationError) -> bool:
    return error.error_count() == 1 and error.errors(include_input=False)[0]["type"] == "json_invalid"


def _mendable(error: ValidationError) -> bool:
    """True if a field that takes whole numbers was given one as a float, or an unknown one was null.

    A body with more than `MOST_FAULTS` is not mended.
    """
    if error.error_count() > MOST_FAULTS:
        return False
    faults = error.errors(include_url=False, include_context=False)
    whole = (
        isinstance(one["input"], float) and one["input"].is_integer() for one in faults if one["type"] == "int_type"
    )
    return any(whole) or any(map(_is_unknown_null, faults))


def _unknown_nulls(error: ValidationError) -> frozenset[str]:
    """The names of unknown fields that were null."""
    faults = error.errors(include_url=False, include_context=False)
    return frozenset(str(one["loc"][-1]) for one in faults if _is_unknown_null(one))


def _is_unknown_null(fault: ErrorDetails) -> bool:
    return fault["type"] == "extra_forbidden" and fault["input"] is None


def _read_again(body: bytes, fault: ValidationError) -> object:
    """Reads JSON that pydantic does not: with a byte-order mark, or half of a surrogate pair."""
    try:
        return _mended(json.loads(body.decode("utf-8-sig")))
    except (ValueError, RecursionError):
        raise _invalid(fault, body) from None


def _mended(document: Any, unknown: Container[str] = ()) -> Any:
    """The document with U+FFFD in place of each half of a surrogate pair, and with whole numbers as integers.

    Members of these `unknown` names are left out where they are null.
    """
    match document:
        case str():
            return _SURROGATE.sub("\ufffd", document)
        case float() if document.is_integer():
            return int(document)
        case list():
            return [_mended(one, unknown) for one in document]
        case dict():
            kept = ((name, one) for name, one in document.items() if one is not None or name not in unknown)
            return {_mended(name): _mended(one, unknown) for name, one in kept}
    return document


def _invalid(error: ValidationError, body: bytes = b"") -> InvalidRequest:
    """Makes the problem that names each faulty field and what it must be; values are not repeated."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    if faults[0]["type"] == "json_invalid":
        guess = _guess(body)
        detail = f"the body is not JSON in UTF-8{': ' if guess else ''}{guess}"
        return InvalidRequest(detail, [{"message": faults[0]["msg"]}], malformed=True)
    errors = [{"field": _path(fault["loc"]), "message": fault["msg"]} for fault in faults[:MOST_FAULTS]]
    first = errors[0]
    return InvalidRequest(f"{first['field'] or 'body'}: {first['message']}", errors)


def _guess(body: bytes) -> str:
    """What a body that is no JSON looks like, or nothing."""
    if not body.strip():
        return "it is empty"
    for pattern, guess in _LOOKS:
        if pattern.match(body):
            return guess
    try:
        body.decode()
    except UnicodeDecodeError as error:
        if error.end == len(body) and error.reason == "unexpected end of data":
            return "it ends within a character"
        return f"byte {error.start} is no UTF-8; it looks like Latin-1"
    return ""


def _path(location: Sequence[int | str]) -> str:
    """Formats `('inputs', '(many)', 3)` as `inputs[3]`: the union's tag is no field.

    Names are the client's, and cut if long.
    """
    path = ""
    for at, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
        elif at not in _TAGGED or location[0] != "inputs" or part not in INPUTS_TAGS:
            name = part[:MOST_CHARACTERS_OF_A_NAME]
            path += f".{name}" if path else name
    return path
