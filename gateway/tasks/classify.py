"""`/classify`: texts in, scored labels out."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Annotated, Literal, TypeAlias

from msgspec import Struct
from pydantic import ConfigDict, Field

from gateway.model.manifest import ClassifierManifest
from gateway.model.messages import Answer, Parameters
from gateway.model.profile import LatencyProfile
from gateway.model.request import RequestShape
from gateway.tasks.base import Strict, Task, TaskBody, VariantKind
from gateway.tasks.service_time import SLOWDOWN_WEIGHT, SPECIAL_TOKENS, Slowdown, TokenRate

FunctionToApply: TypeAlias = Literal["softmax", "sigmoid", "none"]
Truncation: TypeAlias = Literal["longest_first", "error"]

LARGEST_RUN = 16
"""Inputs of a classifier's largest run."""

_BATCH = 8


class ClassifyBodyParameters(Strict):
    """The `parameters` of `POST /classify`."""

    top_k: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="how many labels to answer, best first; all where absent"
    )
    function_to_apply: FunctionToApply | None = Field(default=None, description="softmax where absent")
    truncation: Truncation | None = Field(
        default=None, description="longest_first (the default) keeps the head of a text over the window; error refuses"
    )


class ClassifyBody(TaskBody):
    """The body of `POST /classify`: the Hugging Face Inference API's."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "What a wonderful film."}]})

    parameters: ClassifyBodyParameters | None = Field(default=None, description="how scores are made and cut")


class ClassifyParameters(Parameters, frozen=True, array_like=True, tag="classify"):
    """How the scores of a classification are made and cut; the defaults are the contract's."""

    top_k: int | None = None
    function_to_apply: FunctionToApply = "softmax"
    truncation: Truncation = "longest_first"


class LabelScore(Struct, frozen=True):
    """One label with its score: a probability unless `function_to_apply` is `none`. Encodes as the wire's object."""

    label: str
    score: float


def _read(body: ClassifyBody) -> tuple[ClassifyParameters, None]:
    """The parameters with the contract's defaults filled in."""
    given = body.parameters
    if given is None:
        return ClassifyParameters(), None
    return ClassifyParameters(
        given.top_k, given.function_to_apply or "softmax", given.truncation or "longest_first"
    ), None


class BatchedModel:
    """A classifier: its inputs cut to the window and run in batches of alike lengths."""

    max_batch = LARGEST_RUN

    def __init__(self, profile: LatencyProfile, window_tokens: int) -> None:
        """`window_tokens` is the most that the checkpoint takes of one input."""
        self.sigma = profile.sigma
        self._profile = profile
        self._window_tokens = window_tokens
        self._rate = TokenRate()
        self.slowdown = Slowdown(SLOWDOWN_WEIGHT)
        self._known: list[list[float]] = []

    def tokens(self, characters: int) -> int:
        """The tokens to expect of a text of so many characters, specials included, cut to the window."""
        tokens = self._rate.tokens(characters)
        return tokens if tokens < self._window_tokens else self._window_tokens

    def run_s(self, inputs: int, characters: int) -> float:
        """Inputs as long as one another, in one batch."""
        return self.slowdown.value * self._median_s(inputs, self.tokens(characters))

    def service_time_s(self, characters: Sequence[int], companions: int = 0) -> float:
        """The median service time of inputs of these many characters, batched by alike lengths.

        Companions are run with the last of the batches, that of the longest.
        """
        if len(characters) == 1:
            return self.slowdown.value * self._median_s(1 + companions, self.tokens(characters[0]))
        lengths = sorted(map(self.tokens, characters))
        batches = [lengths[at : at + _BATCH] for at in range(0, len(lengths), _BATCH)]
        alone_s = sum(self._median_s(len(batch), batch[-1]) for batch in batches[:-1])
        return self.slowdown.value * (alone_s + self._median_s(len(batches[-1]) + companions, lengths[-1]))

    def service_times_s(self, asked: RequestShape, room_s: float, companions: int = 0) -> tuple[float, float]:
        """One way to do it, whatever the room. Of a single text, the common case, it is looked up without a call."""
        try:
            (characters,) = asked.characters
            known = self._known[companions]
        except (ValueError, IndexError):  # several texts, or the first with so many companions
            pass
        else:
            tokens = ceil(characters * self._rate.per_character) + SPECIAL_TOKENS
            known_s = known[tokens if tokens < self._window_tokens else self._window_tokens]
            if known_s:
                service_time_s = self.slowdown.value * known_s
                return service_time_s, service_time_s
        service_time_s = self.service_time_s(asked.characters, companions)
        return service_time_s, service_time_s

    def learn(self, asked: RequestShape, answer: Answer) -> None:
        """Learns tokens for characters, not from inputs that were cut, whose count the tokenizer may not give; and the
        pace from single inputs, of which alone it is told which run they were in.
        """
        if not answer.input.truncated:
            self.learn_tokens(asked.characters, answer.input.tokens)
        batch = answer.timings.batch_size
        if len(asked.characters) == 1 and batch > 0 and 0 < answer.input.kept <= self._window_tokens:
            profiled_s = self._median_s(batch, answer.input.kept)
            self.slowdown.learn(answer.timings.service_time_s, profiled_s)

    def forget(self) -> None:
        """The pace alone; how many tokens texts have is no matter of the machine's."""
        self.slowdown = Slowdown(SLOWDOWN_WEIGHT)

    def learn_tokens(self, characters: Sequence[int], tokens: int) -> None:
        """Takes how many tokens, specials included, texts of these many characters had together."""
        self._rate.learn(characters, tokens)

    def _median_s(self, batch: int, tokens: int) -> float:
        """By the profile, remembered by batch size and length; 0 stands for a place that was not asked for yet."""
        while len(self._known) < batch:
            self._known.append([0.0] * (self._window_tokens + 1))
        of_batch = self._known[batch - 1]
        if not of_batch[tokens]:
            of_batch[tokens] = self._profile.median_s(batch, tokens)
        return of_batch[tokens]


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
)
