"""`/zero-shot`: texts and labels of the client's own in, the labels with scores out. `/classify` with labels is it too.

Two kinds of checkpoint answer. An embedder compares the text's vector with that of a sentence about each label, which
it remembers. A classifier of entailment is asked of each label whether the text entails that sentence. Knows how long
each takes, and the documents that clients of the Hugging Face API read; the scores themselves are the replica's.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Struct
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    JsonValue,
    StringConstraints,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from gateway.model.errors import InvalidRequest, no_text
from gateway.model.manifest import ClassifierManifest
from gateway.model.messages import Answer, Parameters
from gateway.model.profile import LatencyProfile
from gateway.tasks.base import Claim, Document, ListOf, Strict, Task, TaskBody, VariantKind
from gateway.tasks.classify import LabelScore
from gateway.tasks.embed import EmbedderManifest
from gateway.tasks.service_time import BatchedModel, StepSharing

MOST_LABELS = 64
"""Labels of one request. Set by hand: each is a run of an engine's row, of every text where entailment is asked."""

MOST_PAIRS = 256
"""Texts times labels of one request: where entailment is asked, each pair is a row of its own. Set by hand."""

MOST_CHARACTERS = 200
"""Characters of a label, and of a template."""

DEFAULT_TEMPLATE = "This example is {}."
"""The sentence about a label that entailment is asked of where a request has none: transformers' own.

An embedder then compares with the label itself: on the data that its scores are fitted on, that loses less for each of
the three starters (`python -m exporters.starter.zero_shot`).
"""

TEMPLATE_TOKENS = 5
"""Tokens that it has beside the label, by BERT's tokenizer and BART's alike."""

PLACE = "{}"
"""Where the label goes in a template."""

MOST_REMEMBERED = 4096
"""Sentences about labels that a checkpoint remembers, the latest used. Set by hand: at 384 numbers, 6 MiB."""


class _Listed:
    """Has a text read as the list of its parts between commas, as transformers reads one."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Divides a text before it is validated."""
        return core_schema.no_info_before_validator_function(self._parts, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Documents the text beside the list."""
        return {"anyOf": [{"type": "string"}, handler(schema)]}

    @staticmethod
    def _parts(given: object) -> object:
        return [part.strip() for part in given.split(",") if part.strip()] if isinstance(given, str) else given


def _not_blank(label: str) -> str:
    if not label.strip():
        raise PydanticCustomError("blank", "must not be blank")
    return label


def _differ(labels: list[str]) -> list[str]:
    """Refuses labels that occur twice: their scores would share what is one label's."""
    first: dict[str, int] = {}
    for at, label in enumerate(labels):
        if first.setdefault(label.strip(), at) != at:
            message = "must differ, and label {at} is label {first} again, counted from 0"
            raise PydanticCustomError("repeated", message, {"at": at, "first": first[label.strip()]})
    return labels


def _has_place(template: str) -> str:
    if template.count(PLACE) != 1 or re.search(r"[{}]", template.replace(PLACE, "")):
        raise PydanticCustomError("template", "must have {} once, where the label goes, and no other braces")
    return template


Label = Annotated[str, StringConstraints(max_length=MOST_CHARACTERS), AfterValidator(_not_blank)]
Labels = Annotated[ListOf[Label], Field(min_length=1, max_length=MOST_LABELS), AfterValidator(_differ), _Listed()]
Template = Annotated[str, StringConstraints(max_length=MOST_CHARACTERS), AfterValidator(_has_place)]


class ZeroShotBodyParameters(Strict):
    """The `parameters` of `POST /zero-shot`: those of Hugging Face's zero-shot classification."""

    candidate_labels: Labels = Field(
        description=f"the labels to choose from: a list of 1 to {MOST_LABELS}, or one text with commas between them"
    )
    multi_label: bool | None = Field(
        default=None,
        description="false (the default) shares 1 among the labels; true scores each by itself, from 0 to 1",
    )
    hypothesis_template: Template | None = Field(
        default=None,
        description=f"the sentence about a label, which stands for {PLACE}; where absent, the checkpoint's own: "
        f"{DEFAULT_TEMPLATE!r} for one that judges entailment, the bare label for an embedder",
    )


_EXAMPLES: list[JsonValue] = [
    {
        "inputs": "The parcel was to come on Monday, and it is Thursday now.",
        "parameters": {"candidate_labels": ["delivery", "payment", "returns", "praise"]},
    },
    {
        "inputs": "Please play something slow for the evening.",
        "parameters": {"candidate_labels": ["music", "weather", "restaurants", "travel"]},
    },
    {
        "inputs": "The kitchen is lovely, but the heating failed twice in a week.",
        "parameters": {"candidate_labels": ["kitchen", "heating", "garden"], "multi_label": True},
    },
]
"""Bodies that the contract shows and the console offers; written for Punctual."""


class ZeroShotBody(TaskBody):
    """The body of `POST /zero-shot`: the Hugging Face Inference API's for zero-shot classification."""

    model_config = ConfigDict(json_schema_extra={"examples": _EXAMPLES})

    parameters: ZeroShotBodyParameters = Field(description="the labels to choose from, and how")

    def texts(self) -> Sequence[str]:
        """The texts to answer, and then the sentence about each label, or without a template the label itself."""
        template = self.parameters.hypothesis_template or PLACE
        return (*super().texts(), *(template.replace(PLACE, label) for label in self.parameters.candidate_labels))

    def place_of(self, at: int) -> tuple[str, int | None]:
        """A text, or behind the texts one of the labels."""
        label = at - len(super().texts())
        return super().place_of(at) if label < 0 else (f"parameters.candidate_labels[{label}]", label)

    @classmethod
    def document_of(cls, texts: Sequence[str]) -> dict[str, object]:
        """A body with these texts and the labels of an example."""
        return super().document_of(texts) | {"parameters": {"candidate_labels": ["praise", "complaint", "question"]}}


class ZeroShotParameters(Parameters, frozen=True, array_like=True, tag="zero-shot"):
    """The labels to choose from, whether each is scored by itself, and the template that was sent, if any.

    The sentences about the labels are the last of the texts.
    """

    labels: tuple[str, ...] = ()
    multi_label: bool = False
    template: str | None = None

    @property
    def shared(self) -> int:
        """The sentences about the labels are no texts to answer, and an embedder may know them."""
        return len(self.labels)


def _read(body: ZeroShotBody) -> tuple[ZeroShotParameters, None]:
    """The parameters with the contract's defaults filled in. Raises InvalidRequest for no text or too many pairs."""
    given = body.parameters
    labels, texts = given.candidate_labels, len(TaskBody.texts(body))
    if not texts:
        raise no_text()
    if texts * len(labels) > MOST_PAIRS:
        message = f"times the texts may be {MOST_PAIRS}, got {len(labels)} times {texts}"
        raise InvalidRequest.of_field("parameters.candidate_labels", message)
    return ZeroShotParameters(tuple(labels), given.multi_label is True, given.hypothesis_template), None


class Ranked(Struct, frozen=True):
    """A text with its labels and their scores, best first: what transformers' pipeline gives."""

    sequence: str
    labels: Sequence[str]
    scores: Sequence[float]


_HUB = re.compile(r"\bhf_hub/(\d{1,4})\.(\d{1,4})")
READS_ELEMENTS = (1, 2)
"""The first version of huggingface_hub whose client reads `[{label, score}, ...]`; 1.1 reads `{labels, scores}` alone.

Both were read in its source, `InferenceClient.zero_shot_classification`: 0.36.2, 1.0 and 1.1 as well as 1.2 and 2.4.
"""


def _document(body: ZeroShotBody, outputs: Sequence[Any], user_agent: str) -> object:
    """The answer in the shape that its client reads; no shape is read by all.

    `huggingface_hub` tells its version. Any other client, of which those of JavaScript read either, gets what
    transformers' pipeline gives. An output of a single text stands alone.
    """
    hub = _HUB.search(user_agent)
    if hub is None or (int(hub[1]), int(hub[2])) < READS_ELEMENTS:
        outputs = [_ranked(text, output) for text, output in zip(TaskBody.texts(body), outputs, strict=True)]
    return outputs[0] if isinstance(body.inputs, str) else outputs


def _ranked(text: str, output: Sequence[Any]) -> Ranked:
    scored = [(one.label, one.score) if isinstance(one, LabelScore) else (one["label"], one["score"]) for one in output]
    return Ranked(text, [label for label, _ in scored], [score for _, score in scored])


class EmbeddedLabels(BatchedModel):
    """Service times of an embedder: the texts, and those sentences about labels that it does not know yet.

    What it knows is learned from answers. Each of several replicas remembers its own, so the first answers of a further
    one take longer than forecast.
    """

    def __init__(self, profile: LatencyProfile, window_tokens: int) -> None:
        super().__init__(profile, window_tokens)
        self._remembered: OrderedDict[int, None] = OrderedDict()

    def service_times_s(
        self, tokens: Sequence[int], parameters: Parameters, available_s: float, companions: int = 0
    ) -> tuple[float, float]:
        """Median seconds of the texts with the labels that are not known; equal, for there is one way to do it."""
        return super().service_times_s(self._to_run(tokens, parameters), parameters, available_s, companions)

    def learn(self, tokens: Sequence[int], parameters: Parameters, answer: Answer) -> None:
        """Learns the slowdown of a single text whose labels were known, and that its labels are known now."""
        super().learn(self._to_run(tokens, parameters), parameters, answer)
        for sentence in _sentences(parameters):
            self._remembered[sentence] = None
            self._remembered.move_to_end(sentence)
        while len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)

    def _to_run(self, tokens: Sequence[int], parameters: Parameters) -> Sequence[int]:
        texts, sentences = len(tokens) - parameters.shared, _sentences(parameters)
        unknown = [
            of_label
            for of_label, sentence in zip(tokens[texts:], sentences, strict=True)
            if sentence not in self._remembered
        ]
        return [*tokens[:texts], *unknown] if unknown else tokens[:texts]


def _sentences(parameters: Parameters) -> list[int]:
    """What the sentences about the labels are remembered by: their hashes."""
    assert isinstance(parameters, ZeroShotParameters), "a task's model is given its own parameters"
    return [hash((parameters.template, label)) for label in parameters.labels]


USUAL_LABELS = 8.0
"""Labels of a request until some were seen. Set by hand."""

LABELS_WEIGHT = 0.05
"""Weight of one answer in the mean number of labels. Set by hand."""


class EntailedLabels(BatchedModel):
    """Service times of a classifier of entailment: a row of the engine for each text with each label.

    Requests share no run: the rows of one fill it. The queue knows texts alone, so a text counts there for as many rows
    as requests have labels on average.
    """

    max_batch = 1
    joins: StepSharing | None = None

    def __init__(self, profile: LatencyProfile, window_tokens: int) -> None:
        super().__init__(profile, window_tokens)
        self._labels = USUAL_LABELS

    def run_s(self, inputs: int, tokens: int) -> float:
        """Median seconds of equally long texts with the usual number of labels."""
        return inputs * self._labels * super().run_s(1, tokens)

    def service_times_s(
        self, tokens: Sequence[int], parameters: Parameters, available_s: float, companions: int = 0
    ) -> tuple[float, float]:
        """Median seconds of every text with every label; equal, for there is one way to do it."""
        assert isinstance(parameters, ZeroShotParameters), "a task's model is given its own parameters"
        texts = len(tokens) - parameters.shared
        more = TEMPLATE_TOKENS if parameters.template is None else 0
        pairs = [text + label + more for text in tokens[:texts] for label in tokens[texts:]]
        return super().service_times_s(pairs or tokens, parameters, available_s, companions)

    def learn(self, tokens: Sequence[int], parameters: Parameters, answer: Answer) -> None:
        """Learns the usual number of labels. Rows of one request have runs of their own, of which none is told."""
        self._labels += LABELS_WEIGHT * (max(parameters.shared, 1) - self._labels)


def entailment_of(labels: Sequence[str]) -> int | None:
    """The place of the label that says entailment, as transformers finds it; None if there is none."""
    return next((at for at, label in enumerate(labels) if label.lower().startswith("entail")), None)


def _lacks(manifest: ClassifierManifest) -> str | None:
    if len(manifest.labels) < 2 or entailment_of(manifest.labels) is None:
        return "a label that begins with 'entail' beside another one"
    return None


ZERO_SHOT = Task(
    name="zero-shot",
    summary="Choose among labels of your own within a latency budget",
    body=ZeroShotBody,
    read=_read,
    parameters=ZeroShotParameters,
    output=list[LabelScore],
    kinds={
        "embedder": VariantKind(
            EmbedderManifest,
            lambda manifest: EmbeddedLabels(LatencyProfile.from_document(manifest.profile), manifest.max_tokens),
        ),
        "classifier": VariantKind(
            ClassifierManifest,
            lambda manifest: EntailedLabels(LatencyProfile.from_document(manifest.profile), manifest.max_tokens),
            _lacks,
        ),
    },
    default_budget_ms=1000.0,
    niceness={},
    runs_equal_texts_once=True,
    claims=Claim("classify", "candidate_labels"),
    document=Document((Ranked, list[LabelScore], list[Ranked], list[list[LabelScore]]), _document, depends=True),
)
