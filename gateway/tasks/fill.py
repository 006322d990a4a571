"""`/fill`: texts with a word left out in, the likeliest words for it out. Any checkpoint's mask is written in any text.

Answers are those of transformers' `fill-mask` pipeline. Checkpoints have mask tokens of their own; since the budget
chooses the checkpoint, `[MASK]` and `<mask>` stand for the mask of whichever answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints
from pydantic_core import PydanticCustomError

from gateway.model.errors import InvalidRequest
from gateway.model.manifest import SelfTest, VariantManifest
from gateway.model.messages import Parameters
from gateway.model.profile import LatencyProfile
from gateway.tasks.base import Document, ListOf, Strict, Task, TaskBody, VariantKind
from gateway.tasks.service_time import BatchedModel

MASKS = ("[MASK]", "<mask>")
"""What stands in a text for the word that is left out, for every checkpoint."""

MASK = re.compile("|".join(map(re.escape, MASKS)))

MOST_MASKS = 8
"""Masks of one text. Set by hand: each takes a number for every token of the vocabulary."""

MOST_MASKED = 64
"""Masks of all texts of a request. Set by hand: of a vocabulary of 50,000 tokens their numbers take 13 MB."""

WORD_S = 3e-5
"""Seconds to write the text of one word: 500 together take some 15 ms."""

MOST_WORDS, USUAL_WORDS = 100, 5
"""Words for one mask, and where a request does not say, as in transformers."""

MOST_FILLED = 500
"""Words for all masks of a request. Set by hand: each has its text written, together in some 15 ms."""

MOST_TARGETS = 256
"""Words that a request may limit the answer to."""


def _not_blank(word: str) -> str:
    if not word.strip():
        raise PydanticCustomError("blank", "must not be blank")
    return word


Word = Annotated[str, StringConstraints(max_length=200), AfterValidator(_not_blank)]


class FillBodyParameters(Strict):
    """The `parameters` of `POST /fill`: those of Hugging Face's fill-mask."""

    top_k: Annotated[int, Field(ge=1, le=MOST_WORDS)] | None = Field(
        default=None, description=f"how many words for a mask, best first; {USUAL_WORDS} where absent"
    )
    targets: Annotated[ListOf[Word], Field(min_length=1, max_length=MOST_TARGETS)] | None = Field(
        default=None,
        description="the words to choose from. One that the checkpoint's vocabulary lacks counts by its first token",
    )


_EXAMPLES: list[JsonValue] = [
    {"inputs": "The train was two hours [MASK]."},
    {"inputs": "We waited at the [MASK] until midnight.", "parameters": {"top_k": 3}},
    {"inputs": "The soup needs more [MASK].", "parameters": {"targets": ["salt", "time", "paper"]}},
]
"""Bodies that the contract shows and the console offers; written for Punctual."""


class FillBody(TaskBody):
    """The body of `POST /fill`: the Hugging Face Inference API's for fill-mask."""

    model_config = ConfigDict(json_schema_extra={"examples": _EXAMPLES})

    parameters: FillBodyParameters | None = Field(default=None, description="how many words, and of which")

    @classmethod
    def document_of(cls, texts: Sequence[str]) -> dict[str, object]:
        """A body with these texts, each with a mask at its end."""
        return super().document_of([f"{text} {MASKS[0]}" for text in texts])


class FillParameters(Parameters, frozen=True, array_like=True, tag="fill"):
    """How many words for a mask, those to choose from, and how many masks all texts have.

    Without `targets` all of the vocabulary is meant.
    """

    top_k: int = USUAL_WORDS
    targets: tuple[str, ...] | None = None
    masks: int = 1


class FilledMask(Struct, frozen=True):
    """One word for a mask. Encodes as the object on the wire."""

    score: Annotated[float, Meta(description="the probability of the token among the whole vocabulary")]
    token: Annotated[int, Meta(description="the token's number in the checkpoint's vocabulary")]
    token_str: Annotated[str, Meta(description="the token as the tokenizer writes it")]
    sequence: Annotated[str, Meta(description="the text with it, as the tokenizer writes that")]


_ONE = {"type": "array", "items": {"$ref": "#/components/schemas/FilledMask"}}
_SEVERAL = {"type": "array", "items": _ONE}
Answered: TypeAlias = Annotated[
    Any, Meta(extra_json_schema={"anyOf": [_ONE, _SEVERAL, {"type": "array", "items": _SEVERAL}]})
]
"""The document of an answer: words of the one mask, or a list for each of several masks; of a list of texts a list."""


def _answered(body: FillBody, outputs: Sequence[Any], client: str) -> object:
    """Of a text with one mask the words alone, as transformers answers it; of several masks a list of those each."""
    told = [output[0] if len(output) == 1 else output for output in outputs]
    return told[0] if isinstance(body.inputs, str) else told


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FillVerification(_Frozen):
    """How a filler's words compare with its source's, over `texts` texts with one mask each.

    `same_word` is the share of texts for which both find the same word likeliest. `logit_error` is the root mean square
    of the logits' errors, as a share of the standard deviation of the source's logits.
    """

    texts: int = Field(ge=1)
    data_set: str
    same_word: float = Field(ge=0, le=1)
    same_word_floor: float = Field(ge=0, le=1)
    logit_error: float = Field(ge=0)
    logit_error_ceiling: float = Field(ge=0)
    largest_logit_difference: float = Field(ge=0)


class FillerManifest(VariantManifest):
    """The manifest of an encoder that finds the tokens for masks.

    Its logits are those of masks alone, one for each token of the vocabulary. Golden inputs are texts with a mask in
    the middle, with a few of its logits.
    """

    kind: Literal["filler"] = "filler"
    mask_token: str
    cleans_spaces: bool = Field(description="whether its tokenizer takes spaces before punctuation out of texts")
    verification: FillVerification
    self_test: SelfTest

    @property
    def agreement(self) -> float:
        """The share of texts for which both find the same word likeliest."""
        return self.verification.same_word

    def details(self) -> dict[str, object]:
        """The checkpoint's own mask."""
        return {"mask_token": self.mask_token}


def _read(body: FillBody) -> tuple[FillParameters, None]:
    """The parameters with the contract's defaults filled in. Raises InvalidRequest for a text without a mask."""
    for place, text in enumerate(body.texts()):
        masks = len(MASK.findall(text))
        if 1 <= masks <= MOST_MASKS:
            continue
        field = "inputs" if isinstance(body.inputs, str) else f"inputs[{place}]"
        either = " or ".join(MASKS)
        wanted = f"must have {either} where the word is left out: each stands for the checkpoint's own mask token"
        message = wanted if masks == 0 else f"may have {MOST_MASKS} masks, got {masks}"
        raise InvalidRequest.of_field(field, message)
    given = body.parameters or FillBodyParameters()
    top_k, total = given.top_k or USUAL_WORDS, sum(len(MASK.findall(text)) for text in body.texts())
    if total > MOST_MASKED:
        raise InvalidRequest.of_field("inputs", f"may have {MOST_MASKED} masks together, got {total}")
    if top_k * total > MOST_FILLED:
        raise InvalidRequest.of_field(
            "parameters.top_k", f"times the masks may be {MOST_FILLED}, got {top_k} times {total}"
        )
    return FillParameters(top_k, None if given.targets is None else tuple(given.targets), total), None


class FillerModel(BatchedModel):
    """Service times of a filler: those of its encoder, and of writing each word for each mask."""

    def service_times_s(
        self, tokens: Sequence[int], parameters: Parameters, available_s: float, companions: int = 0
    ) -> tuple[float, float]:
        """Median seconds, twice: there is one way."""
        engine_s, _ = super().service_times_s(tokens, parameters, available_s, companions)
        words = parameters.top_k * parameters.masks if isinstance(parameters, FillParameters) else 0
        return engine_s + WORD_S * words, engine_s + WORD_S * words


FILL = Task(
    name="fill",
    summary="Find the word that is left out of a text within a latency budget",
    body=FillBody,
    read=_read,
    parameters=FillParameters,
    output=list[list[FilledMask]],
    document=Document((Answered,), _answered),
    kinds={
        "filler": VariantKind(
            FillerManifest,
            lambda manifest: FillerModel(LatencyProfile.from_document(manifest.profile), manifest.max_tokens),
        )
    },
    default_budget_ms=1000.0,
    niceness={},
    runs_equal_texts_once=True,
)
