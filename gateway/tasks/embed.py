"""`/embed`: texts in, vectors out, all of one checkpoint: vectors of different checkpoints do not compare."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from gateway.model.errors import InvalidRequest
from gateway.model.manifest import SelfTest, VariantManifest
from gateway.model.messages import Parameters
from gateway.model.profile import LatencyProfile
from gateway.tasks.base import Fact, Strict, Task, TaskBody, VariantKind
from gateway.tasks.service_time import BatchedModel

Side: TypeAlias = Literal["left", "right"]

SHOWN_OF_A_DIGEST = 12
"""Hexadecimal digits of a source's digest that stand for its revision where it has none of its own."""


class EmbedBodyParameters(Strict):
    """The `parameters` of `POST /embed`: those of Hugging Face's feature extraction.

    Its clients send them beside `inputs`, so they may stand there too; within `parameters` they go first.
    """

    normalize: bool | None = Field(
        default=None, description="give vectors of length 1; where absent as the checkpoint's own configuration says"
    )
    truncate: bool | None = Field(
        default=None, description="true (the default) cuts a text over the window; false refuses it"
    )
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = Field(
        default=None, description="the side that a text over the window is cut on; right where absent"
    )
    prompt_name: str | None = Field(
        default=None, description="the name of one of the checkpoint's prompts, which is put before each text"
    )


_EXAMPLES: list[JsonValue] = [
    {"inputs": "The train was two hours late.", "parameters": {"normalize": True}},
    {"inputs": "We waited at the station until midnight.", "parameters": {"normalize": True}},
    {"inputs": ["How do I reset my password?", "I have forgotten the code that lets me in."]},
]
"""Bodies that the contract shows and the console offers; written for Punctual."""


class EmbedBody(TaskBody, EmbedBodyParameters):
    """The body of `POST /embed`: the Hugging Face Inference API's for feature extraction."""

    model_config = ConfigDict(json_schema_extra={"examples": _EXAMPLES})

    parameters: EmbedBodyParameters | None = Field(default=None, description="how texts are cut and vectors given")

    def ignored(self, path: str = "") -> Iterator[str]:
        """Parameters beside `inputs` too, where those within `parameters` go before them."""
        yield from super().ignored(path)
        for name in EmbedBodyParameters.model_fields:
            if getattr(self, name) is not None and getattr(self.parameters, name, None) is not None:
                yield f"{path}{name}"


class EmbedParameters(Parameters, frozen=True, array_like=True, tag="embed"):
    """How texts are cut and vectors given; None is the checkpoint's own choice."""

    normalize: bool | None = None
    truncate: bool = True
    cut: Side = "right"
    prompt_name: str | None = None


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EmbeddingVerification(_Frozen):
    """How an embedder's vectors compare with its source's over `texts` texts.

    Cosines are between the two vectors of one text, from -1 to 1. `neighbours` is the share of searches that find the
    same text, or one hardly farther by the source's own vectors. The reciprocal rank is the mean over searches with a
    summary for its own text, from 0 to 1; None if the texts have no summaries. `moved` is how far a text's vector lies,
    as one less the cosine, from that of the same text among others of unlike lengths.
    """

    texts: int = Field(ge=1)
    data_set: str
    mean_cosine: float = Field(ge=-1, le=1)
    least_cosine: float = Field(ge=-1, le=1)
    least_cosine_floor: float = Field(ge=-1, le=1)
    neighbours: float = Field(ge=0, le=1)
    neighbours_floor: float = Field(ge=0, le=1)
    reciprocal_rank: float | None = Field(default=None, ge=0, le=1)
    source_reciprocal_rank: float | None = Field(default=None, ge=0, le=1)
    reciprocal_rank_drop_ceiling: float = Field(ge=0, le=1)
    moved: float = Field(ge=0, le=2)
    moved_ceiling: float = Field(ge=0, le=2)


class EmbedderManifest(VariantManifest):
    """The manifest of an encoder that gives a vector for each text.

    The logits of its golden inputs are those vectors, pooled and not normalised. `normalized` says that its
    configuration normalises them, and `prompts` has the texts that it may put before a text, by name.
    """

    kind: Literal["embedder"] = "embedder"
    dimensions: int = Field(ge=1)
    pooling: tuple[str, ...] = Field(min_length=1)
    normalized: bool
    prompts: dict[str, str] = Field(default_factory=dict)
    default_prompt: str | None = None
    verification: EmbeddingVerification
    self_test: SelfTest

    @property
    def agreement(self) -> float:
        """The share of searches that find what the source's vectors find."""
        return self.verification.neighbours

    @property
    def revision(self) -> str:
        """The source's revision, or where it has none the beginning of the digest of its files."""
        return self.source.revision or self.source.sha256[:SHOWN_OF_A_DIGEST]

    def details(self) -> dict[str, object]:
        """What a client must know to use its vectors."""
        return {
            "dimensions": self.dimensions,
            "pooling": list(self.pooling),
            "normalized": self.normalized,
            "prompts": sorted(self.prompts),
        }


def _read(body: EmbedBody) -> tuple[EmbedParameters, None]:
    """The parameters with the contract's defaults filled in."""
    inner = body.parameters or EmbedBodyParameters()
    normalize = body.normalize if inner.normalize is None else inner.normalize
    truncate = body.truncate if inner.truncate is None else inner.truncate
    direction = inner.truncation_direction or body.truncation_direction
    cut: Side = "left" if direction in ("Left", "left") else "right"
    return EmbedParameters(normalize, truncate is not False, cut, inner.prompt_name or body.prompt_name), None


def _check(manifest: EmbedderManifest, parameters: EmbedParameters) -> None:
    """Raises InvalidRequest for the name of a prompt that the checkpoint does not have."""
    name = parameters.prompt_name
    if name is None or name in manifest.prompts:
        return
    known = f"must be one of {', '.join(sorted(manifest.prompts))}" if manifest.prompts else "must be absent"
    why = "" if manifest.prompts else f": {manifest.checkpoint} has no prompts"
    raise InvalidRequest.of_field("parameters.prompt_name", f"{known}{why}")


EMBEDDER = VariantKind(
    EmbedderManifest,
    lambda manifest: BatchedModel(LatencyProfile.from_document(manifest.profile), manifest.max_tokens),
)
"""The kind of variant that gives vectors; other tasks may read their answers off those."""

EMBED = Task(
    name="embed",
    summary="Give vectors of texts within a latency budget",
    body=EmbedBody,
    read=_read,
    parameters=EmbedParameters,
    output=list[float],
    kinds={"embedder": EMBEDDER},
    default_budget_ms=1000.0,
    niceness={},
    runs_equal_texts_once=True,
    facts=(
        Fact(
            "revision",
            "X-Checkpoint-Revision",
            str,
            "The revision of the checkpoint's source: a commit, or the beginning of the digest of its files.",
            lambda manifest: str(manifest.revision),
        ),
        Fact(
            "dimensions",
            "X-Embedding-Dimensions",
            int,
            "The numbers in each vector.",
            lambda manifest: int(manifest.dimensions),
        ),
    ),
    fixed_checkpoint=True,
    openai={"embeddings": EmbedBodyParameters.model_fields},
    check=_check,
)
