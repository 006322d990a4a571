"""The JSON bodies of the contract: parsed and validated once on the way in, encoded once on the way out.

Pydantic models at this edge only; inward go msgspec structs and frozen dataclasses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag, ValidationError

from gateway.catalog import Limits
from gateway.problems import InputTooLong, InvalidRequest
from gateway.work import ClassifyParameters, FunctionToApply, Truncation

Body = TypeVar("Body", bound=BaseModel)
Text = Annotated[str, StringConstraints(min_length=1)]

MOST_FAULTS = 16
MOST_CHARACTERS_OF_A_NAME = 64


def _one_or_many(inputs: object) -> str | None:
    """The union tag of `inputs`: decided by its kind alone, so that a fault inside is told for that kind alone."""
    if isinstance(inputs, str):
        return "one"
    return "many" if isinstance(inputs, list) else None


Inputs = Annotated[
    Annotated[Text, Tag("one")] | Annotated[list[Text], Tag("many")],
    Discriminator(
        _one_or_many, custom_error_type="text_type", custom_error_message="Input should be a text or a list of texts"
    ),
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ClassifyBodyParameters(_Strict):
    """The `parameters` of `POST /classify`."""

    top_k: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="how many labels to answer, best first; all where absent"
    )
    function_to_apply: FunctionToApply | None = Field(default=None, description="softmax where absent")
    truncation: Truncation | None = Field(
        default=None, description="longest_first (the default) keeps the head of a text over the window; error refuses"
    )


class ClassifyBody(_Strict):
    """The body of `POST /classify`: the Hugging Face Inference API's."""

    inputs: Inputs = Field(description="one text, or a list of them")
    parameters: ClassifyBodyParameters | None = None


class RouteBody(_Strict):
    """The body of `POST /route`: nothing is run, so it takes no parameters."""

    task: str
    inputs: Inputs


def parse(body: bytes, model: type[Body], limits: Limits) -> Body:
    """Validates a body. Raises InputTooLong (413), or InvalidRequest: 400 where it is not JSON, else 422."""
    if len(body) > limits.max_body_bytes:
        raise body_too_long(limits.max_body_bytes)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error) from None


def body_too_long(limit_bytes: int) -> InputTooLong:
    """The 413 of a body over the limit, raised before all of it is read."""
    return InputTooLong(f"the body may have {limit_bytes} bytes", {"limit": limit_bytes, "unit": "bytes"})


def texts(inputs: str | Sequence[str], limits: Limits) -> tuple[str, ...]:
    """The inputs as a tuple, no more and together no longer than allowed. Raises InputTooLong or InvalidRequest."""
    listed = (inputs,) if isinstance(inputs, str) else tuple(inputs)
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


def classify_parameters(parameters: ClassifyBodyParameters | None) -> ClassifyParameters:
    """The parameters with the contract's defaults filled in."""
    if parameters is None:
        return ClassifyParameters()
    return ClassifyParameters(
        parameters.top_k, parameters.function_to_apply or "softmax", parameters.truncation or "longest_first"
    )


def encode(document: object) -> bytes:
    """JSON in UTF-8."""
    return msgspec.json.encode(document)


def _invalid(error: ValidationError) -> InvalidRequest:
    """Names each faulty field by its path and says what it must be; values of the request are not repeated."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    if faults[0]["type"] == "json_invalid":
        return InvalidRequest("the body is not JSON in UTF-8", [{"message": faults[0]["msg"]}], malformed=True)
    errors = [{"field": _path(fault["loc"]), "message": fault["msg"]} for fault in faults[:MOST_FAULTS]]
    first = errors[0]
    return InvalidRequest(f"{first['field'] or 'body'}: {first['message']}", errors)


def _path(location: Sequence[int | str]) -> str:
    """`('inputs', 'many', 3)` as `inputs[3]`: the union's tag is no field. A name is the client's, and cut if long."""
    path = ""
    for at, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
        elif at != 1 or location[0] != "inputs":  # in which nothing has a name but the tag
            name = part[:MOST_CHARACTERS_OF_A_NAME]
            path += f".{name}" if path else name
    return path
