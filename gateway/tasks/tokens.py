"""`/tokens`: texts in, what was found in them out: entities with their kinds, scores and places.

Answers are those of transformers' token classification. A text over the checkpoint's window is taken in overlapping
windows (`windows_of`), which replica and forecast share; so nothing is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from gateway.model.manifest import SelfTest, VariantManifest
from gateway.model.messages import Parameters
from gateway.model.profile import LatencyProfile
from gateway.tasks.base import Document, ListOf, Strict, Task, TaskBody, VariantKind
from gateway.tasks.windows import WindowedModel, windows_of

Aggregation: TypeAlias = Literal["none", "simple", "first", "average", "max"]
"""How tokens become entities, by transformers' names."""

OUTSIDE = "O"
"""The label of a token that belongs to nothing."""

OVERLAP = 4
"""A quarter of a window is read twice, unless a request says otherwise. Set by hand: more than any name or number."""

MOST_IGNORED_LABELS = 256
"""Labels that a request may leave out."""

Label = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class TokensBodyParameters(Strict):
    """The `parameters` of `POST /tokens`: those of Hugging Face's token classification, with `redact` and `domain`."""

    aggregation_strategy: Aggregation | None = Field(
        default=None,
        description="how tokens become entities: none answers each token; simple joins tokens by their labels; first, "
        "average and max label whole words, and join those. Where absent, the checkpoint's own",
    )
    ignore_labels: Annotated[ListOf[Label], Field(max_length=MOST_IGNORED_LABELS)] | None = Field(
        default=None, description='labels that are left out; ["O"] where absent, an empty list answers all'
    )
    stride: Annotated[int, Field(ge=0, le=100_000)] | None = Field(
        default=None,
        description="tokens that two windows of a long text share: at most half a window, where absent a quarter",
    )
    redact: bool | None = Field(
        default=None,
        description="true answers an object for each text: the text with every entity replaced by its kind, as "
        "[EMAIL], and the entities",
    )
    domain: Annotated[str, StringConstraints(min_length=1, max_length=63)] | None = Field(
        default=None, description="what is looked for: checkpoints made for that domain are candidates too"
    )


_EXAMPLES: list[JsonValue] = [
    {
        "inputs": (
            "Hi, it's Jos\u00e9 from \u00c1vila. My landlord is Wei Zhang, 9 Harbour Road, "
            "Bristol. He will call you on Tuesday."
        ),
        "parameters": {"redact": True},
    },
    {"inputs": "Please send the invoice to Ann Cole, 7 Mill Lane, Bristol.", "parameters": {}},
    {"inputs": "The train was two hours late.", "parameters": {"aggregation_strategy": "none", "ignore_labels": []}},
]
"""Bodies that the contract shows and the console offers; written for Punctual."""


class TokensBody(TaskBody):
    """The body of `POST /tokens`: the Hugging Face Inference API's for token classification."""

    model_config = ConfigDict(json_schema_extra={"examples": _EXAMPLES})

    parameters: TokensBodyParameters | None = Field(default=None, description="how entities are made, and shown")


class TokensParameters(Parameters, frozen=True, array_like=True, tag="tokens"):
    """How entities are made and shown; None is the checkpoint's own choice."""

    aggregation: Aggregation | None = None
    ignored: tuple[str, ...] = (OUTSIDE,)
    stride: int | None = None
    redact: bool = False


class Entity(Struct, frozen=True, kw_only=True):
    """What was found: tokens that were joined (`entity_group`), or one token (`entity`, `index`).

    Encodes as the object on the wire. Places are characters (Unicode code points) of the client's own text.
    """

    entity_group: Annotated[str | UnsetType, Meta(description="the kind, without B- or I-")] = UNSET
    entity: Annotated[str | UnsetType, Meta(description="the label of a single token")] = UNSET
    score: Annotated[float, Meta(description="the probability of the label: the mean of what was joined")]
    index: Annotated[int | UnsetType, Meta(description="the place of a single token in its text")] = UNSET
    word: Annotated[str, Meta(description="the tokens as the tokenizer writes them; start and end have the text")]
    start: Annotated[int, Meta(description="its first character in the text")]
    end: Annotated[int, Meta(description="the character after its last")]


class RedactedText(Struct, frozen=True):
    """A text in which entities are replaced by their kinds, and the entities by their places in the text as it came."""

    redacted: str
    entities: list[Entity]


_ENTITIES = {"type": "array", "items": {"$ref": "#/components/schemas/Entity"}}
_OUTPUT = {"anyOf": [_ENTITIES, {"$ref": "#/components/schemas/RedactedText"}]}
Answered: TypeAlias = Annotated[
    Any, Meta(extra_json_schema={"anyOf": [*_OUTPUT["anyOf"], {"type": "array", "items": _OUTPUT}]})
]
"""The document of an answer: one output, or a list of them; msgspec has no union of two lists."""


def _answered(body: TokensBody, outputs: Sequence[Any], client: str) -> object:
    """The output of a text that came alone, as transformers' pipeline answers it; of a list the list of outputs."""
    return outputs[0] if isinstance(body.inputs, str) else outputs


def overlap_of(room: int, stride: int | None) -> int:
    """The tokens that two windows share, of which each holds `room`: at most half of the room, by default a quarter."""
    return room // OVERLAP if stride is None else min(stride, room // 2)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaggingVerification(_Frozen):
    """How a tagger's labels compare with its source's, token by token, over `texts` texts of `tokens` tokens.

    `label_agreement` is the share of tokens with the same label, `tagged_agreement` that of the tokens which the source
    gives another label than `O`; None if it gives none. `logit_error` is the root mean square of the logits' errors, as
    a share of the standard deviation of the source's logits.
    """

    texts: int = Field(ge=1)
    tokens: int = Field(ge=1)
    data_set: str
    label_agreement: float = Field(ge=0, le=1)
    label_agreement_floor: float = Field(ge=0, le=1)
    tagged_tokens: int = Field(ge=0)
    tagged_agreement: float | None = Field(default=None, ge=0, le=1)
    tagged_agreement_floor: float = Field(ge=0, le=1)
    logit_error: float = Field(ge=0)
    logit_error_ceiling: float = Field(ge=0)
    largest_logit_difference: float = Field(ge=0)


class TaggerManifest(VariantManifest):
    """The manifest of an encoder that labels each token.

    The logits of its golden inputs are those of a few of their tokens. `special_tokens` are those that each window has
    beside its text, and `unknown_token_id` is what stands for a word that the vocabulary lacks.
    """

    kind: Literal["tagger"] = "tagger"
    labels: tuple[str, ...]
    aggregation_strategy: Aggregation = Field(
        default="simple", description="how tokens become entities where a request does not say"
    )
    special_tokens: int = Field(ge=0)
    unknown_token_id: int | None = None
    verification: TaggingVerification
    self_test: SelfTest

    @property
    def agreement(self) -> float:
        """The share of tokens that both label alike."""
        return self.verification.label_agreement

    @property
    def room(self) -> int:
        """The most tokens of a text in one window, specials not counted."""
        return self.max_tokens - self.special_tokens

    def details(self) -> dict[str, object]:
        """The labels, how tokens become entities, and how many tokens of a window are special."""
        return {
            "labels": self.labels,
            "aggregation_strategy": self.aggregation_strategy,
            "special_tokens": self.special_tokens,
        }


class TaggedModel(WindowedModel):
    """Service times of a tagger."""

    def __init__(self, profile: LatencyProfile, window_tokens: int, special_tokens: int) -> None:
        """`window_tokens` is the most that the checkpoint takes at once, with that many special ones."""
        super().__init__(profile, window_tokens)
        self._specials = special_tokens

    def lengths(self, tokens: int, parameters: Parameters | None, place: int) -> list[int]:
        """The tokens of each window of a text, specials included."""
        if tokens <= self._window_tokens:
            return [tokens]
        specials, room = self._specials, self._window_tokens - self._specials
        stride = parameters.stride if isinstance(parameters, TokensParameters) else None
        windows = windows_of(tokens - specials, room, overlap_of(room, stride))
        return [end - start + specials for start, end in windows]


def _read(body: TokensBody) -> tuple[TokensParameters, str | None]:
    """The parameters with the contract's defaults filled in, and the domain."""
    given = body.parameters or TokensBodyParameters()
    ignored = (OUTSIDE,) if given.ignore_labels is None else tuple(given.ignore_labels)
    return TokensParameters(given.aggregation_strategy, ignored, given.stride, given.redact is True), given.domain


TOKENS = Task(
    name="tokens",
    summary="Find entities in texts within a latency budget",
    body=TokensBody,
    read=_read,
    parameters=TokensParameters,
    output=list[Entity] | RedactedText,
    document=Document((Answered,), _answered),
    windowed=True,
    kinds={
        "tagger": VariantKind(
            TaggerManifest,
            lambda manifest: TaggedModel(
                LatencyProfile.from_document(manifest.profile), manifest.max_tokens, manifest.special_tokens
            ),
        )
    },
    default_budget_ms=1000.0,
    niceness={},
    runs_equal_texts_once=True,
)
