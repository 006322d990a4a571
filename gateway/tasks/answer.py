"""`/answer`: a question and a context in, the place in the context that answers it out.

Two kinds of checkpoint answer. One made for it finds the first and the last token of the answer; an embedder finds the
sentence that is nearest to the question. Knows how long each takes; the answers themselves are the replica's.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, StringConstraints, Tag, model_validator

from gateway.model.manifest import SelfTest, VariantManifest
from gateway.model.messages import Answer, Parameters
from gateway.model.profile import LatencyProfile
from gateway.tasks.base import (
    MANY,
    ONE,
    OPTIONS,
    Document,
    Fact,
    ListOf,
    Options,
    RequestBody,
    Strict,
    Task,
    Text,
    VariantKind,
)
from gateway.tasks.embed import EmbedderManifest
from gateway.tasks.service_time import BatchedModel, StepSharing
from gateway.tasks.windows import MOST_WINDOWS, PLANNED, WindowedModel, windows_of

MOST_ANSWERS = 100
"""Answers to one question. Set by hand."""

MOST_ANSWER_TOKENS = 1_000
"""Tokens of one answer that a request may allow. Set by hand: more than the window of most checkpoints."""

USUAL_ANSWER_TOKENS = 15
"""Most tokens of one answer where a request does not say, as in transformers."""

MOST_QUESTION_CHARACTERS = 2_000
"""Characters of a question. Set by hand: over 400 tokens of English, which leave a context no room."""

MOST_WINDOW_TOKENS = 1_000_000
"""Tokens of a window, an overlap or a question that a request may name; the checkpoint's window bounds them."""


class QuestionInput(Strict):
    """A question, and the text in which its answer is looked for."""

    question: Annotated[str, StringConstraints(min_length=1, max_length=MOST_QUESTION_CHARACTERS)] = Field(
        description="the question"
    )
    context: Text = Field(description="the text in which the answer is looked for")


def _one_or_many(inputs: object) -> str | None:
    """The union tag of `inputs`, by its kind alone: errors inside are then reported for that kind only."""
    if isinstance(inputs, list):
        return MANY
    return ONE if isinstance(inputs, dict | QuestionInput) else None


def _any_of(schema: dict[str, Any]) -> None:
    """Documents the union as most contracts write one, the single question first."""
    schema["anyOf"] = schema.pop("oneOf")


_MESSAGE = 'Input should be {"question": text, "context": text}, or a list of those'
QuestionInputs = Annotated[
    Annotated[QuestionInput, Tag(ONE)] | Annotated[ListOf[QuestionInput], Tag(MANY)],
    Discriminator(_one_or_many, custom_error_type="question_type", custom_error_message=_MESSAGE),
]


class AnswerBodyParameters(Strict):
    """The `parameters` of `POST /answer`: those of Hugging Face's question answering."""

    top_k: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = Field(
        default=None, description="how many answers, best first. 1 where absent; more are answered by a list"
    )
    max_answer_len: Annotated[int, Field(ge=1, le=MOST_ANSWER_TOKENS)] | None = Field(
        default=None,
        description=f"most tokens of an answer, {USUAL_ANSWER_TOKENS} where absent. An embedder answers by whole "
        "sentences, whatever their length",
    )
    handle_impossible_answer: bool | None = Field(
        default=None, description='true: that the context has no answer, "", may be the answer; false where absent'
    )
    align_to_words: bool | None = Field(
        default=None, description="true (the default) widens an answer to whole words; false leaves parts of words"
    )
    max_seq_len: Annotated[int, Field(ge=1, le=MOST_WINDOW_TOKENS)] | None = Field(
        default=None,
        description="most tokens of one window, the question included: where absent 384, and no more than the "
        "checkpoint's window",
    )
    doc_stride: Annotated[int, Field(ge=0, le=MOST_WINDOW_TOKENS)] | None = Field(
        default=None,
        description="tokens that two windows of a long context share: where absent 128, or half of max_seq_len if "
        "that is less",
    )
    max_question_len: Annotated[int, Field(ge=1, le=MOST_WINDOW_TOKENS)] | None = Field(
        default=None, description="tokens that a question is cut to; whole where absent"
    )


_CONTEXT = (
    "The lighthouse at Start Point was built in 1836 by James Walker. It stands 28 metres tall, and its light is seen "
    "25 nautical miles away. A fog signal was added in 1862, with its machinery in a small building on the cliff. "
    "The light has been automatic since 1993."
)
_EXAMPLES: list[JsonValue] = [
    {"inputs": {"question": "Who built the lighthouse?", "context": _CONTEXT}},
    {"inputs": {"question": "How far can the light be seen?", "context": _CONTEXT}, "parameters": {"top_k": 3}},
    {
        "inputs": {
            "question": "Is postage refunded?",
            "context": (
                "You may return what you bought within 30 days. Please keep the receipt. We refund the price five days "
                "after the parcel has reached us. Postage is not refunded."
            ),
        },
        "parameters": {"handle_impossible_answer": True},
    },
]
"""Bodies that the contract shows and the console offers; written for Punctual."""


class AnswerBody(RequestBody):
    """The body of `POST /answer`: the Hugging Face Inference API's for question answering.

    `question` and `context` may stand in place of `inputs`, as older clients send them.
    """

    model_config = ConfigDict(json_schema_extra={"examples": _EXAMPLES})

    inputs: QuestionInputs = Field(
        description="a question with its context, or a list of them", json_schema_extra=_any_of
    )
    parameters: AnswerBodyParameters | None = Field(default=None, description="how many answers, and of what length")
    options: Options = OPTIONS

    @model_validator(mode="before")
    @classmethod
    def _from_flat(cls, given: object) -> object:
        """Reads `question` and `context` beside `parameters`, as `huggingface_hub` before 0.26 sends them."""
        if not isinstance(given, dict) or "inputs" in given or not {"question", "context"} & given.keys():
            return given
        inputs = {name: given[name] for name in ("question", "context") if name in given}
        return {"inputs": inputs, **{name: value for name, value in given.items() if name not in inputs}}

    def texts(self) -> Sequence[str]:
        """Each question with its context as one text, which `second_at` divides."""
        return [one.question + one.context for one in self._each()]

    def second_at(self) -> tuple[int, ...]:
        """Where the context of each text begins, in characters."""
        return tuple(len(one.question) for one in self._each())

    def _each(self) -> Sequence[QuestionInput]:
        return self.inputs if isinstance(self.inputs, list) else (self.inputs,)

    @staticmethod
    def inputs_of(texts: Sequence[str]) -> object:
        """A question about each text: a single one as itself, several as a list."""
        asked = [{"question": "What is it about?", "context": text} for text in texts]
        return asked[0] if len(asked) == 1 else asked


class AnswerParameters(Parameters, frozen=True, array_like=True, tag="answer"):
    """How answers are looked for, by the contract's defaults; None is the checkpoint's own choice.

    `second_at` has for each text the character where its context begins.
    """

    top_k: int = 1
    max_answer_tokens: int = USUAL_ANSWER_TOKENS
    impossible: bool = False
    whole_words: bool = True
    window_tokens: int | None = None
    overlap: int | None = None
    question_tokens: int | None = None
    second_at: tuple[int, ...] = ()

    def of_distinct(self, inputs: Sequence[str]) -> tuple[Sequence[str], Parameters]:
        """The inputs that differ: pairs are equal if both of their texts are."""
        if not self.second_at:
            return super().of_distinct(inputs)
        apart = dict.fromkeys(zip(inputs, self.second_at, strict=True))
        return [text for text, _ in apart], replace(self, second_at=tuple(at for _, at in apart))


class FoundAnswer(Struct, frozen=True):
    """One answer: a part of the context. Encodes as the object on the wire.

    Places are characters (Unicode code points) of the client's own context.
    """

    answer: Annotated[str, Meta(description='the part of the context; "" where it has no answer')]
    score: Annotated[float, Meta(description="how sure the checkpoint is; its kind says what the number means")]
    start: Annotated[int, Meta(description="its first character in the context")]
    end: Annotated[int, Meta(description="the character after its last")]


_ONE = {"$ref": "#/components/schemas/FoundAnswer"}
_SEVERAL = {"type": "array", "items": _ONE}
Answered: TypeAlias = Annotated[
    Any,
    Meta(extra_json_schema={"anyOf": [_ONE, {"type": "array", "items": {"anyOf": [_ONE, _SEVERAL]}}]}),
]
"""The document of an answer: one answer or a list of answers, or of a list of questions a list of those."""


def _answered(body: AnswerBody, outputs: Sequence[Any], client: str) -> object:
    """The best answer where one is asked for, else a list; of a list of questions, a list of either."""
    single = body.parameters is None or body.parameters.top_k in (None, 1)
    told = [output[0] for output in outputs] if single else outputs
    return told if isinstance(body.inputs, list) else told[0]


def _read(body: AnswerBody) -> tuple[AnswerParameters, None]:
    """The parameters with the contract's defaults filled in."""
    given = body.parameters or AnswerBodyParameters()
    return AnswerParameters(
        given.top_k or 1,
        given.max_answer_len or USUAL_ANSWER_TOKENS,
        given.handle_impossible_answer is True,
        given.align_to_words is not False,
        given.max_seq_len,
        given.doc_stride,
        given.max_question_len,
        body.second_at(),
    ), None


USUAL_WINDOW_TOKENS, USUAL_OVERLAP = 384, 128
"""Tokens of a window, the question included, and of an overlap, where a request does not say, as in transformers."""


def window_of(window_tokens: int, parameters: AnswerParameters | None) -> int:
    """The tokens of one window with its question, by the parameters and the checkpoint's own window."""
    asked = parameters.window_tokens if parameters is not None else None
    return min(asked or USUAL_WINDOW_TOKENS, window_tokens)


def overlap_of(window: int, room: int, parameters: AnswerParameters | None) -> int:
    """The tokens that two windows share, of which each holds `room` tokens of the context beside the question.

    Half of the room where transformers' pipeline would fail: where the overlap that is asked for fills it.
    """
    asked = parameters.overlap if parameters is not None else None
    overlap = min(window // 2, USUAL_OVERLAP) if asked is None else asked
    return overlap if overlap < room else room // 2


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SpanVerification(_Frozen):
    """How the answers of a variant compare with its source's, over `questions` questions in `windows` windows.

    `same_answers` is the share of questions that both answer by the same place in the context. `logit_error` is the
    root mean square of the logits' errors, as a share of the standard deviation of the source's logits.
    """

    questions: int = Field(ge=1)
    windows: int = Field(ge=1)
    data_set: str
    same_answers: float = Field(ge=0, le=1)
    same_answers_floor: float = Field(ge=0, le=1)
    logit_error: float = Field(ge=0)
    logit_error_ceiling: float = Field(ge=0)
    largest_logit_difference: float = Field(ge=0)


class AnswererManifest(VariantManifest):
    """The manifest of an encoder that finds the first and the last token of an answer.

    Its logits are two for each token. The golden inputs are contexts beside `golden_question`, with the logits of a few
    tokens. `special_tokens` are those of a window, and `no_answer_token` says that the first of them stands for none.
    """

    kind: Literal["answerer"] = "answerer"
    token_types: bool = Field(description="whether the checkpoint is told what is question and what is context")
    special_tokens: int = Field(ge=0)
    no_answer_token: bool = Field(description="whether the first token of a window stands for no answer")
    golden_question: str
    verification: SpanVerification
    self_test: SelfTest

    @property
    def agreement(self) -> float:
        """The share of questions that both answer alike."""
        return self.verification.same_answers

    def details(self) -> dict[str, object]:
        """What a forecast of windows needs beyond the common fields."""
        return {"special_tokens": self.special_tokens}


COUNTED_SPECIALS = 2
"""Special tokens of a text as it is counted before the decision."""

TOKENS_PER_CHARACTER = 0.27
"""Tokens per character of a question in English: of question and context, only the sum is counted."""

USUAL_QUESTION_TOKENS = 12
"""Tokens of a question until one is known. Set by hand."""


class SpansModel(WindowedModel):
    """Service times of an encoder that reads a question beside each window of its context."""

    def __init__(self, profile: LatencyProfile, window_tokens: int, special_tokens: int) -> None:
        """`window_tokens` is the most that the checkpoint takes at once, with that many special ones."""
        super().__init__(profile, window_tokens)
        self._specials = special_tokens

    def lengths(self, tokens: int, parameters: Parameters | None, place: int) -> list[int]:
        """The tokens of each window of a context, question and specials included.

        More windows than a request may have are forecast as so many: they are refused where they are read.
        """
        asked = parameters if isinstance(parameters, AnswerParameters) else None
        window = window_of(self._window_tokens, asked)
        question = USUAL_QUESTION_TOKENS
        if asked is not None and place < len(asked.second_at):
            question = ceil(asked.second_at[place] * TOKENS_PER_CHARACTER)
            question = min(question, asked.question_tokens or question)
        context = max(tokens - COUNTED_SPECIALS - question, 0)
        beside = min(question + self._specials, window - 1)
        room = window - beside
        overlap = overlap_of(window, room, asked)
        if context - overlap > MOST_WINDOWS * (room - overlap):
            return [window] * MOST_WINDOWS
        return [beside + end - start for start, end in windows_of(context, room, overlap)]


SENTENCE_TOKENS = 32
"""Tokens of a sentence, specials included, as many as in the texts that summaries were measured on."""


class SentencesModel(BatchedModel):
    """Service times of an embedder that reads a question, and each sentence of its context, as an input of its own.

    Requests share no run: the sentences of one fill it.
    """

    max_batch = 1
    joins: StepSharing | None = None

    def run_s(self, inputs: int, tokens: int) -> float:
        """Median seconds of that many contexts with their questions."""
        return self.slowdown.value * inputs * self._sentences_s(tokens)

    def service_times_s(
        self, tokens: Sequence[int], parameters: Parameters, available_s: float, companions: int = 0
    ) -> tuple[float, float]:
        """Median seconds of all sentences, twice: there is one way to do it."""
        service_time_s = self.slowdown.value * sum(self._sentences_s(one) for one in tokens)
        return service_time_s, service_time_s

    def learn(self, tokens: Sequence[int], parameters: Parameters, answer: Answer) -> None:
        """Learns nothing: the sentences of one request have several runs, of which none is told."""

    def _sentences_s(self, tokens: int) -> float:
        sentences = ceil(tokens / SENTENCE_TOKENS) + 1
        planned = min(sentences, PLANNED)
        return self._alike_s(planned, min(SENTENCE_TOKENS, self._window_tokens)) * sentences / planned


_FORMS = {"embedder": "sentence", "answerer": "words"}
"""What answers of each kind of checkpoint are."""

ANSWER = Task(
    name="answer",
    summary="Find the answer to a question in a text within a latency budget",
    body=AnswerBody,
    read=_read,
    parameters=AnswerParameters,
    output=list[FoundAnswer],
    document=Document((Answered,), _answered),
    windowed=True,
    kinds={
        "embedder": VariantKind(
            EmbedderManifest,
            lambda manifest: SentencesModel(LatencyProfile.from_document(manifest.profile), manifest.max_tokens),
        ),
        "answerer": VariantKind(
            AnswererManifest,
            lambda manifest: SpansModel(
                LatencyProfile.from_document(manifest.profile), manifest.max_tokens, manifest.special_tokens
            ),
        ),
    },
    default_budget_ms=1000.0,
    niceness={},
    runs_equal_texts_once=True,
    facts=(
        Fact(
            "form",
            "X-Answer-Form",
            str,
            "What an answer is: `words`, as few as answer the question, or the `sentence` that holds them.",
            lambda manifest: _FORMS[manifest.kind],
        ),
    ),
)
