"""`/classify`: texts in, scored labels out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace
from pydantic import ConfigDict, Discriminator, Field, JsonValue, Tag

from gateway.model.manifest import ClassifierManifest, FunctionToApply
from gateway.model.messages import Parameters
from gateway.model.profile import LatencyProfile
from gateway.tasks.base import (
    BY_ANOTHER_NAME,
    MANY,
    ONE,
    OPTIONS,
    PAIR,
    Ignored,
    ListOf,
    Options,
    RequestBody,
    Spellings,
    Strict,
    Task,
    Text,
    VariantKind,
)
from gateway.tasks.service_time import BatchedModel

Truncation: TypeAlias = Literal["longest_first", "error"]

_LONG_TEXT = Spellings(
    {
        "only_first": "longest_first",
        "only_second": "error",
        "do_not_truncate": "error",
        True: "longest_first",
        False: "error",
    }
)
"""Hugging Face's words for the ways to treat a long text, and ours. Nothing has a second text that could be cut."""


class ClassifyBodyParameters(Strict):
    """The `parameters` of `POST /classify`."""

    top_k: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="how many labels to answer, best first; all where absent"
    )
    return_all_scores: bool | None = Field(
        default=None,
        description="where top_k is absent: false answers the best label alone, true all",
        json_schema_extra=BY_ANOTHER_NAME,
    )
    function_to_apply: FunctionToApply | None = Field(
        default=None,
        description="what makes scores of logits; where absent, the checkpoint's own: softmax for one label of "
        "several, sigmoid for one label alone or several independent ones, none for a regression",
    )
    truncation: Annotated[Truncation, _LONG_TEXT] | None = Field(
        default=None,
        description="longest_first (the default) keeps the head of a text over the window; error refuses. Hugging "
        "Face's only_first and true are read as longest_first, its do_not_truncate, only_second and false as error",
    )
    padding: Ignored[bool | str] = Field(
        default=None, description="accepted and without effect: texts are padded as their batch needs it"
    )

    def ignored(self, path: str = "") -> Iterator[str]:
        """Whether all scores are asked for too, where their number is."""
        yield from super().ignored(path)
        if self.top_k is not None and self.return_all_scores is not None:
            yield f"{path}return_all_scores"


class TextPair(Strict):
    """Two texts that are classified as one input, such as a question and an answer, or a premise and a hypothesis."""

    text: Text = Field(description="the first text")
    text_pair: Text | None = Field(default=None, description="the second text; without it the first is alone")


def _kind_of(given: object) -> str | None:
    """The union tag of one text or pair, by its kind alone: errors inside are then reported for that kind only."""
    if isinstance(given, str):
        return ONE
    return PAIR if isinstance(given, dict | TextPair) else None


def _one_or_many(inputs: object) -> str | None:
    return MANY if isinstance(inputs, list) else _kind_of(inputs)


_MESSAGE = "Input should be a text, a pair of texts, or a list of them"
_EACH = "Input should be a text or a pair of texts"
ClassifyInput = Annotated[
    Annotated[Text, Tag(ONE)] | Annotated[TextPair, Tag(PAIR)],
    Discriminator(_kind_of, custom_error_type="text_type", custom_error_message=_EACH),
]
ClassifyInputs = Annotated[
    Annotated[Text, Tag(ONE)] | Annotated[TextPair, Tag(PAIR)] | Annotated[ListOf[ClassifyInput], Tag(MANY)],
    Discriminator(_one_or_many, custom_error_type="text_type", custom_error_message=_MESSAGE),
]


_EXAMPLES: list[JsonValue] = [
    {
        "inputs": "What a wonderful film.",
    },
    {
        "inputs": (
            "The camera work is lovely and the first hour flies by, but then the story forgets where it was going "
            "and the ending left me cold."
        ),
    },
    {
        "inputs": (
            "I went in expecting very little. The trailer had shown me a film that I had already seen three times, "
            "and the poster promised a fourth. For twenty minutes it kept that promise: a city at night, a "
            "detective who drinks, a voice that explains what the pictures show. Then the old woman opens the "
            "door, and it becomes something else. She does not weep, she does not confess; she offers him soup, "
            "and while he eats it she tells him, in passing, everything he came to find out. The scene lasts "
            "eleven minutes and has no music. I have not seen its like in years. What follows is uneven. The chase "
            "through the market is shot so nervously that I lost count of who was running from whom, and the "
            "brother's return is a coincidence that not even the actors seem to believe. But the film has earned "
            "patience by then, and it repays it: the last shot, of the empty kitchen with two bowls on the table, "
            "says more about grief than most films manage in two hours. I walked home instead of taking the tram. "
            "It is not a perfect film. It is a generous one, which is rarer, and I would gladly see it again "
            "tomorrow."
        ),
    },
]
"""Bodies that the contract shows and the console offers; written for Punctual."""


class ClassifyBody(RequestBody):
    """The body of `POST /classify`: the Hugging Face Inference API's, with transformers' pairs of texts."""

    model_config = ConfigDict(json_schema_extra={"examples": _EXAMPLES})

    inputs: ClassifyInputs = Field(description="one text, one pair of texts, or a list of them")
    parameters: ClassifyBodyParameters | None = Field(default=None, description="how scores are made and cut")
    options: Options = OPTIONS

    def texts(self) -> Sequence[str]:
        """Each input as one text: of a pair the first and then the second, which `second_at` finds."""
        return [one if isinstance(one, str) else one.text + (one.text_pair or "") for one in self._each()]

    def second_at(self) -> tuple[int | None, ...] | None:
        """Where the second text of each input begins, in characters; None for one alone. None if there is no pair."""
        places = tuple(len(one.text) if isinstance(one, TextPair) and one.text_pair else None for one in self._each())
        return places if any(at is not None for at in places) else None

    def _each(self) -> Sequence[str | TextPair]:
        return self.inputs if isinstance(self.inputs, list) else (self.inputs,)

    @staticmethod
    def inputs_of(texts: Sequence[str]) -> object:
        """A single text as itself, several as a list."""
        return texts[0] if len(texts) == 1 else list(texts)


class ClassifyParameters(Parameters, frozen=True, array_like=True, tag="classify"):
    """How the scores of a classification are computed and cut; the defaults are the contract's.

    Without a `function_to_apply` the checkpoint's own is meant. A pair travels as one text. `second_at` has for each
    input the character where its second text begins, None where there is none; it is None if no input is a pair.
    """

    top_k: int | None = None
    function_to_apply: FunctionToApply | None = None
    truncation: Truncation = "longest_first"
    second_at: tuple[int | None, ...] | None = None

    def of_distinct(self, inputs: Sequence[str]) -> tuple[Sequence[str], Parameters]:
        """The inputs that differ: pairs are equal if both of their texts are."""
        if self.second_at is None:
            return super().of_distinct(inputs)
        apart = dict.fromkeys(zip(inputs, self.second_at, strict=True))
        return [text for text, _ in apart], replace(self, second_at=tuple(at for _, at in apart))


class LabelScore(Struct, frozen=True):
    """One label with its score: a probability unless no function was applied.

    Encodes as the object on the wire.
    """

    label: str
    score: float


def _read(body: ClassifyBody) -> tuple[ClassifyParameters, None]:
    """The parameters with the contract's defaults filled in."""
    given, second_at = body.parameters, body.second_at()
    if given is None:
        return ClassifyParameters(second_at=second_at), None
    best_alone = given.top_k is None and given.return_all_scores is False
    top_k = 1 if best_alone else given.top_k
    return ClassifyParameters(top_k, given.function_to_apply, given.truncation or "longest_first", second_at), None


CLASSIFY = Task(
    name="classify",
    summary="Classify texts within a latency budget",
    body=ClassifyBody,
    read=_read,
    parameters=ClassifyParameters,
    output=list[LabelScore],
    kinds={
        "classifier": VariantKind(
            ClassifierManifest,
            lambda manifest: BatchedModel(LatencyProfile.from_document(manifest.profile), manifest.max_tokens),
        )
    },
    default_budget_ms=1000.0,
    niceness={},
    runs_equal_texts_once=True,
)
