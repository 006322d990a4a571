"""The JSON bodies of the contract: parsed and validated once on the way in, encoded once on the way out.

Pydantic models at this edge only; inward go msgspec structs and frozen dataclasses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar, cast

import msgspec
from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, StringConstraints, Tag, ValidationError

from gateway.catalogs.catalog import Limits, Task
from gateway.model.errors import InputTooLong, InvalidRequest
from gateway.model.messages import (
    ClassifyParameters,
    FunctionToApply,
    LongText,
    Parameters,
    SummarizeParameters,
    Truncation,
)

Body = TypeVar("Body", bound=BaseModel)
Text = Annotated[str, StringConstraints(min_length=1)]

MOST_FAULTS = 16
MOST_CHARACTERS_OF_A_NAME = 64
MOST_NEW_TOKENS = 4096
MOST_BEAMS = 16
_LONG_TEXT: dict[str, LongText] = {"only_first": "longest_first", "do_not_truncate": "chunk"}


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


Tokens = Annotated[int, Field(ge=1, le=MOST_NEW_TOKENS)]
LeastTokens = Annotated[int, Field(ge=0, le=MOST_NEW_TOKENS)]
Beams = Annotated[int, Field(ge=1, le=MOST_BEAMS)]


class GenerateParameters(_Strict):
    """`generate_parameters`: those of transformers' that a summary takes. `max_length` is read as `max_new_tokens`."""

    max_new_tokens: Tokens | None = None
    max_length: Tokens | None = None
    min_new_tokens: LeastTokens | None = None
    min_length: LeastTokens | None = None
    num_beams: Beams | None = None
    length_penalty: Annotated[float, Field(ge=-10, le=10)] | None = None
    no_repeat_ngram_size: Annotated[int, Field(ge=0, le=32)] | None = None
    early_stopping: bool | None = None
    do_sample: Literal[False] | None = Field(default=None, description="summaries are searched for, never drawn")


class SummarizeBodyParameters(_Strict):
    """The `parameters` of `POST /summarize`. What is given here overrides the same in `generate_parameters`."""

    max_new_tokens: Tokens | None = Field(default=None, description="at most; the budget may leave fewer")
    min_new_tokens: LeastTokens | None = Field(default=None, description="at least, where the budget lets it")
    num_beams: Beams | None = Field(default=None, description="at most; the budget may leave fewer")
    truncation: Literal[LongText, "only_first", "do_not_truncate"] | None = Field(
        default=None,
        description="of a text over the window: chunk (the default) summarises it piece by piece and the pieces once "
        "more, longest_first keeps its head, error refuses. only_first is read as longest_first, do_not_truncate as "
        "chunk",
    )
    domain: Annotated[str, StringConstraints(min_length=1, max_length=63)] | None = Field(
        default=None, description="what the text is about: checkpoints made for that domain are candidates too"
    )
    generate_parameters: GenerateParameters | None = None
    clean_up_tokenization_spaces: bool | None = Field(default=None, description="accepted; spaces are always cleaned")


class SummarizeBody(_Strict):
    """The body of `POST /summarize`: the Hugging Face Inference API's."""

    inputs: Inputs = Field(description="one text, or a list of them")
    parameters: SummarizeBodyParameters | None = None


class RouteBody(_Strict):
    """The body of `POST /route`; its parameters are those of the task."""

    task: str
    inputs: Inputs
    parameters: dict[str, JsonValue] | None = None


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


def summarize_parameters(parameters: SummarizeBodyParameters | None) -> SummarizeParameters:
    """The parameters with the contract's defaults filled in. Raises InvalidRequest where a least is over its most."""
    given = parameters or SummarizeBodyParameters()
    more = given.generate_parameters or GenerateParameters()
    most = given.max_new_tokens or more.max_new_tokens or more.max_length
    leasts = (
        ("parameters.min_new_tokens", given.min_new_tokens),
        ("parameters.generate_parameters.min_new_tokens", more.min_new_tokens),
        ("parameters.generate_parameters.min_length", more.min_length),
    )
    name, least = next((one for one in leasts if one[1] is not None), ("", None))
    if most is not None and least is not None and least > most:
        message = f"must be at most the {most} new tokens that are allowed"
        raise InvalidRequest(f"{name}: {message}", [{"field": name, "message": message}])
    truncation = given.truncation or "chunk"
    return SummarizeParameters(
        max_new_tokens=most,
        min_new_tokens=least,
        num_beams=given.num_beams or more.num_beams,
        length_penalty=more.length_penalty,
        no_repeat_ngram_size=more.no_repeat_ngram_size,
        early_stopping=more.early_stopping,
        truncation=_LONG_TEXT.get(truncation) or cast(LongText, truncation),
    )


def route_parameters(body: RouteBody, task: Task) -> tuple[Parameters, str | None]:
    """The parameters of the body's task, and its domain. Raises InvalidRequest as the task's own endpoint would."""
    given = {"parameters": body.parameters, "inputs": body.inputs}
    try:
        if task is Task.SUMMARIZE:
            summarize = SummarizeBody.model_validate(given).parameters
            return summarize_parameters(summarize), summarize.domain if summarize else None
        return classify_parameters(ClassifyBody.model_validate(given).parameters), None
    except ValidationError as error:
        raise _invalid(error) from None


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
