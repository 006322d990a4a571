"""The JSON bodies of the contract: parsed and validated once on the way in, encoded once on the way out.

Pydantic models stay at this edge; further in there are msgspec structs and frozen dataclasses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NoReturn, TypeVar

import msgspec
from pydantic import BaseModel, Field, JsonValue, ValidationError
from pydantic_core import from_json

from gateway.catalogs.catalog import Limits
from gateway.model.errors import InputTooLong, InvalidRequest, Problem, no_text
from gateway.tasks.base import INPUTS_TAGS, MOST_CHARACTERS_OF_A_NAME, RequestBody, Strict, Task

Body = TypeVar("Body", bound=BaseModel)

MOST_FAULTS = 16
"""Faults of a body that a problem lists."""

MOST_IGNORED = 64
"""Fields without effect that an answer lists."""

MOST_VALUES, MOST_VALUES_A_TEXT = 512, 16
"""Items of lists and members of objects that a body may have: so many, and so many for each text of `max_inputs`.

Set by hand. A message of a conversation has nine as OpenAI's own client sends it back, and a list among the parameters
at most 256. Whatever is wrong with so few is found and told within some 20 ms.
"""

MOST_DEPTH = 200
"""Lists and objects within each other, as deep as pydantic's own parser reads."""

MOST_DIGITS = 4300
"""Digits of a whole number that is read as one, as many as Python reads. One of more is read as infinite."""

_VALUES = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|([,\[{])', re.DOTALL)
"""A string, or what stands before each item and member: a comma, or what opens a list or an object."""

_TAGGED = frozenset({("inputs", 1), ("inputs", 3), ("prompt", 1), ("input", 1), ("stop", 1), ("messages", 3)})
"""Where the place of a fault may name a union's tag: by the field that the place begins with, and the part of it."""

_NO_NUMBER = re.compile(rb"[\[:,]\s*-?(NaN|Infinity)")

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
    """Reads and validates a body. Raises what `read` and `validated` raise."""
    return validated(read(body, limits), model)


def read(body: bytes, limits: Limits) -> object:
    """Reads the JSON of a body. Raises InputTooLong (413), or InvalidRequest (400) if it is no JSON in UTF-8.

    A byte-order mark of UTF-8 is skipped, and half of a surrogate pair is read as U+FFFD. How many values a body has is
    counted before any is read, so that no body takes long to be refused.
    """
    if len(body) > limits.max_body_bytes:
        raise body_too_long(limits.max_body_bytes)
    most = MOST_VALUES + MOST_VALUES_A_TEXT * limits.max_inputs
    if has_more_values(body, most):
        detail = f"the body may have {most} items and members in all, and {limits.max_inputs} texts"
        raise InputTooLong(detail, {"limit": most, "unit": "values"})
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        fault = error
    try:
        document = json.loads(body.decode("utf-8-sig"), parse_int=_whole, parse_constant=_no_number)
        return _mended(document)
    except (ValueError, RecursionError):
        guess = _guess(body)
        detail = f"the body is not JSON in UTF-8{': ' if guess else ''}{guess}"
        raise InvalidRequest(detail, [{"message": f"Invalid JSON: {fault}"}], malformed=True) from None


def has_more_values(body: bytes, most: int) -> bool:
    """True if JSON has more items of lists and members of objects than that; an empty list or object counts as one.

    Only so many are looked at, and none where there are too few commas and brackets in all, those of texts included.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) <= most:
        return False
    values = (found for found in _VALUES.finditer(body) if found[1])
    return next(islice(values, most, None), None) is not None


def from_query(query: Mapping[str, str], model: type[Body]) -> Body:
    """Validates the parameters of a query; empty ones count as absent. Raises InvalidRequest."""
    return validated({name: value for name, value in query.items() if value}, model)


def has_parameter(document: object, name: str) -> bool:
    """True if the `parameters` of a body have a member of that name that is not null."""
    parameters = document.get("parameters") if isinstance(document, dict) else None
    return isinstance(parameters, dict) and parameters.get(name) is not None


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


def placed(problem: Problem, body: RequestBody) -> Problem:
    """The problem with the place in the body of the text that it is about, if it is about one."""
    at = problem.members.get("index")
    if isinstance(problem, InputTooLong) and isinstance(at, int):
        path, index = body.place_of(at)
        problem.detail = problem.detail.replace(f"inputs[{at}]", path, 1)
        if index is None:
            del problem.members["index"]
        else:
            problem.members["index"] = index
    return problem


def encode(document: object) -> bytes:
    """Encodes JSON in UTF-8."""
    return msgspec.json.encode(document)


def validated(document: object, model: type[Body]) -> Body:
    """Validates what was read. Raises InvalidRequest (422).

    A whole number may be written `60.0`, and a field that is null counts as absent, also one that is not known here:
    clients write those that nobody has set.
    """
    try:
        return model.model_validate(document)
    except ValidationError:
        pass
    try:
        return model.model_validate(_mended(document))
    except ValidationError as error:
        raise _invalid(error) from None


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= MOST_DIGITS else float(digits)


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _mended(document: Any, depth: int = 0) -> Any:
    """The document with U+FFFD in place of each half of a surrogate pair, whole numbers as integers, and no nulls.

    Items of lists stay, whatever they are. Raises ValueError if it is deeper than `MOST_DEPTH`.
    """
    if depth > MOST_DEPTH:
        raise ValueError("too deep")
    match document:
        case str():
            return document if document.isascii() else _SURROGATE.sub("\ufffd", document)
        case float() if document.is_integer():
            return int(document)
        case list():
            return [_mended(one, depth + 1) for one in document]
        case dict():
            kept = ((name, one) for name, one in document.items() if one is not None)
            return {_mended(name): _mended(one, depth + 1) for name, one in kept}
    return document


def _invalid(error: ValidationError) -> InvalidRequest:
    """Makes the problem that names each faulty field and what it must be; values are not repeated."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
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
    if _NO_NUMBER.search(body):
        return "it has NaN or Infinity, which JSON does not"
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
        elif (location[0], at) not in _TAGGED or part not in INPUTS_TAGS:
            name = part[:MOST_CHARACTERS_OF_A_NAME]
            path += f".{name}" if path else name
    return path
