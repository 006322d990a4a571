"""The manifest of a variant: what it is, its source, how well it agrees with that, and how fast it is.

Exporters write it, replicas check it before they serve, and the gateway forecasts from its latency profile. There are
three kinds: a classifier, an encoder-decoder that writes summaries, and an encoder that extracts sentences.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from gateway.model.profile import ProfileDocument

MANIFEST_NAME = "manifest.json"
FORMAT = 3
"""Version of the manifest's fields."""


FunctionToApply: TypeAlias = Literal["softmax", "sigmoid", "none"]
"""What makes scores of a classifier's logits."""

Measure: TypeAlias = Literal["label", "each_label", "error"]
"""How a classifier is compared with its source: by the best label, by each label, or by the error of its numbers."""


class Precision(StrEnum):
    """The number format that a variant computes in; of `int8-weights` only the matrices are int8, in blocks."""

    FP32 = "fp32"
    INT8 = "int8"
    INT8_WEIGHTS = "int8-weights"
    BF16 = "bf16"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceOf(_Frozen):
    """The checkpoint a variant was made from: a folder or Hub id, its revision, and a digest of its files."""

    location: str
    revision: str
    sha256: str


class Verification(_Frozen):
    """How a classifier compares with its source over `texts` texts, and the floors it had to reach.

    Agreements and accuracies are shares from 0 to 1; accuracies are None if the texts have no labels. `label_agreement`
    is by `measure`: the share of texts with the same best label (`label`), of labels that both give a text or both
    withhold (`each_label`), or of the variance of the source's numbers that the variant's explain (`error`).
    `score_difference` is of independent labels: the mean difference of the scores of the worst of them.
    """

    texts: int = Field(ge=1)
    data_set: str
    label_agreement: float = Field(ge=0, le=1)
    label_agreement_floor: float = Field(ge=0, le=1)
    measure: Measure = "label"
    largest_logit_difference: float = Field(ge=0)
    score_difference: float | None = Field(default=None, ge=0)
    score_difference_ceiling: float | None = Field(default=None, ge=0)
    accuracy: float | None = Field(default=None, ge=0, le=1)
    source_accuracy: float | None = Field(default=None, ge=0, le=1)
    accuracy_drop_ceiling: float = Field(default=0.01, ge=0, le=1)


class RacedShape(_Frozen):
    """The least time of an engine's runs at one batch shape, and the share of runs that the shape stands for."""

    batch: int = Field(ge=1)
    tokens: int = Field(ge=1)
    share: float = Field(gt=0, le=1)
    least_s: float = Field(gt=0)


class RacedEngine(_Frozen):
    """What was measured of one engine that could run a checkpoint.

    `mean_s` is the mean of the least times over `shapes`, by their shares. `memory_bytes` is about what the process
    grew by when the engine was opened and had run every shape. `label_agreement` is with the source, None if a faster
    engine was taken before it was asked. `failed` says why it could not be opened; it has then no shapes.
    """

    variant: str
    mean_s: float | None = Field(default=None, gt=0)
    shapes: tuple[RacedShape, ...] = ()
    memory_bytes: int | None = Field(default=None, ge=0)
    label_agreement: float | None = Field(default=None, ge=0, le=1)
    failed: str | None = None


class EngineChoice(_Frozen):
    """How the engine of a variant was chosen on a host: all that were raced, in order of preference, and the rule."""

    measured_on: str
    threads: int = Field(ge=1)
    rule: str
    raced: tuple[RacedEngine, ...] = Field(min_length=1)


class GoldenInput(_Frozen):
    """A text, the token ids its tokenizer must give, and the logits its engine must give within the tolerance."""

    text: str
    token_ids: tuple[int, ...]
    logits: tuple[float, ...]


class SelfTest(_Frozen):
    """What a replica checks again before it becomes ready: each golden input alone, logits within `tolerance`."""

    tolerance: float = Field(gt=0)
    golden: tuple[GoldenInput, ...] = Field(min_length=1)


class TokenVerification(_Frozen):
    """How an encoder-decoder variant compares with its source, both writing greedily, over `texts` texts.

    `same_tokens` is the share of texts for which both write the same tokens from first to last. ROUGE-L is F1 from 0 to
    1 against the texts' own summaries, None if they have none; `rouge_l_to_source` is against the source's output.
    """

    texts: int = Field(ge=1)
    data_set: str
    same_tokens: float = Field(ge=0, le=1)
    same_tokens_floor: float = Field(ge=0, le=1)
    rouge_l_to_source: float = Field(ge=0, le=1)
    rouge_l: float | None = Field(default=None, ge=0, le=1)
    source_rouge_l: float | None = Field(default=None, ge=0, le=1)
    rouge_l_drop_ceiling: float = Field(default=0.01, ge=0, le=1)


class ChoiceVerification(_Frozen):
    """How an extractive variant compares with its source over `texts` texts.

    `same_choice` is the share of chosen sentences that both choose. `least_cosine` is the worst similarity of the two
    vectors of one sentence. ROUGE-L as in `TokenVerification`.
    """

    texts: int = Field(ge=1)
    data_set: str
    same_choice: float = Field(ge=0, le=1)
    same_choice_floor: float = Field(ge=0, le=1)
    least_cosine: float = Field(ge=-1, le=1)
    rouge_l: float | None = Field(default=None, ge=0, le=1)
    source_rouge_l: float | None = Field(default=None, ge=0, le=1)
    rouge_l_drop_ceiling: float = Field(default=0.01, ge=0, le=1)


class GoldenSummary(_Frozen):
    """A text, the token ids its tokenizer must give, and the tokens its engine must write greedily after them."""

    text: str
    token_ids: tuple[int, ...]
    written: tuple[int, ...]


class GenerationRules(_Frozen):
    """How an encoder-decoder writes unless a request says otherwise: the fields used of its `generation_config.json`.

    `max_new_tokens` is the most that it may write, and `num_beams` the most beams that are worth their time. `prefix`
    is put before every text (T5). `lower_cased` says that its output has lost its capitals. `suppressed_token_ids` are
    never written, and `renormalized` spreads their probability over the other tokens (Marian).
    """

    decoder_start_token_id: int = Field(ge=0)
    eos_token_ids: tuple[int, ...]
    max_new_tokens: int = Field(ge=1)
    min_new_tokens: int = Field(default=0, ge=0)
    num_beams: int = Field(default=4, ge=1)
    length_penalty: float = 1.0
    early_stopping: bool = False
    no_repeat_ngram_size: int = Field(default=0, ge=0)
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    prefix: str = ""
    lower_cased: bool = False
    suppressed_token_ids: tuple[int, ...] = ()
    renormalized: bool = False


class VariantManifest(_Frozen, ABC):
    """The manifest of one variant of any kind: all that is needed to serve or to judge it."""

    format: int = FORMAT
    checkpoint: str
    task: str
    family: str
    engine: str
    precision: Precision
    source: SourceOf
    max_tokens: int = Field(ge=1, description="the window: tokens of one input, specials included")
    pad_token_id: int = Field(default=0, ge=0, description="what a shorter text of a batch is filled up with")
    files: dict[str, str] = Field(description="sha256 of every file of the variant by its name")
    cpu_features: tuple[str, ...] = Field(description="flags of /proc/cpuinfo that its speed or correctness relies on")
    profile: ProfileDocument = Field(description="service time of one run of the encoder by batch size and tokens")
    made_with: dict[str, str] = Field(description="library versions by name")
    kind: str

    @property
    def variant(self) -> str:
        """The variant's name: engine and precision."""
        return f"{self.engine}-{self.precision}"

    @property
    @abstractmethod
    def agreement(self) -> float:
        """How far it agrees with its source, from 0 to 1, by the measure of its kind."""

    def details(self) -> dict[str, object]:
        """What `/checkpoints` shows of this kind beyond the common fields, as JSON data."""
        return {}


class ClassifierManifest(VariantManifest):
    """The manifest of a variant that scores labels."""

    kind: Literal["classifier"] = "classifier"
    labels: tuple[str, ...]
    function_to_apply: FunctionToApply = Field(
        default="softmax", description="what makes scores of its logits where a request does not say"
    )
    truncation_side: Literal["left", "right"] = Field(
        default="right", description="the side on which a text over the window is cut"
    )
    token_types: bool = Field(
        default=True, description="whether the checkpoint is told which of a pair's texts a token is of"
    )
    verification: Verification
    self_test: SelfTest
    choice: EngineChoice | None = Field(default=None, description="how its engine was chosen; None if it was given")

    @property
    def agreement(self) -> float:
        """The share of texts that both give the same label, or what the verification measures in its place."""
        return self.verification.label_agreement

    def details(self) -> dict[str, object]:
        """The labels, how scores are made, and how the engine was chosen if it was."""
        found: dict[str, object] = {"labels": self.labels, "function_to_apply": self.function_to_apply}
        if self.choice is not None:
            found["engine_choice"] = _in_ms(self.choice)
        return found


def _in_ms(choice: EngineChoice) -> dict[str, object]:
    """A choice as people read it: times in milliseconds, memory in bytes."""

    def ms(seconds: float | None) -> float | None:
        return None if seconds is None else round(seconds * 1000, 3)

    return {
        "measured_on": choice.measured_on,
        "threads": choice.threads,
        "rule": choice.rule,
        "raced": [
            {
                "variant": one.variant,
                "mean_ms": ms(one.mean_s),
                "service_time_ms": [
                    {"batch": at.batch, "tokens": at.tokens, "share": at.share, "least": ms(at.least_s)}
                    for at in one.shapes
                ],
                "memory_bytes": one.memory_bytes,
                "label_agreement": one.label_agreement,
                "failed": one.failed,
            }
            for one in choice.raced
        ],
    }


class ExtractiveManifest(VariantManifest):
    """The manifest of an encoder whose sentence vectors are ranked: it answers with the source's own sentences.

    The logits of its golden inputs are those vectors, and `max_tokens` is of one sentence.
    """

    kind: Literal["extractive"] = "extractive"
    sentences: int = Field(ge=1, description="sentences of a summary where the request does not limit it")
    verification: ChoiceVerification
    self_test: SelfTest

    @property
    def agreement(self) -> float:
        """The share of chosen sentences that both choose."""
        return self.verification.same_choice

    def details(self) -> dict[str, object]:
        """The usual number of sentences."""
        return {"sentences": self.sentences}


class Seq2SeqManifest(VariantManifest):
    """The manifest of an encoder-decoder that writes summaries token by token.

    `profile` has the encoder with the first decoding step, at batch size 1. `step_profile` has each later step, by
    beams as batch size and by tokens of the source. `output_tokens` is the mean length that it writes if not limited.
    """

    kind: Literal["seq2seq"] = "seq2seq"
    generation: GenerationRules
    output_tokens: float = Field(gt=0)
    verification: TokenVerification
    self_test: tuple[GoldenSummary, ...] = Field(min_length=1)
    step_profile: ProfileDocument

    @property
    def agreement(self) -> float:
        """The share of texts for which both write the same tokens."""
        return self.verification.same_tokens

    def details(self) -> dict[str, object]:
        """How it writes, its mean length, and what a step takes."""
        return {
            "generation": self.generation.model_dump(mode="json"),
            "output_tokens": round(self.output_tokens, 1),
            "step_ms": self.step_profile.cells_ms(),
        }


def parse_manifest(folder: Path, kinds: Mapping[str, type[VariantManifest]]) -> VariantManifest:
    """Reads the manifest in a folder, as the kind it names. Raises FileNotFoundError, or pydantic's ValidationError."""
    content = (folder / MANIFEST_NAME).read_bytes()
    kind = _Kind.model_validate_json(content, context=kinds).kind
    return kinds[kind].model_validate_json(content)


class _Kind(BaseModel):
    """The kind alone, since the other fields depend on it."""

    kind: str

    @field_validator("kind")
    @classmethod
    def _is_known(cls, kind: str, info: ValidationInfo) -> str:
        known: Mapping[str, object] = info.context or {}
        if kind not in known:
            raise ValueError(f"must be one of {', '.join(known)}")
        return kind


def write_manifest(folder: Path, manifest: VariantManifest) -> None:
    """Writes the manifest, last of a variant's files: a folder without one is not a variant."""
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1) + "\n")
