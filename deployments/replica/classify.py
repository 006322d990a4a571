"""A classifier's replica: sets the deadline, tokenises, runs batches and scores labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from deployments.engines.base import Engine, Logits
from deployments.engines.opening import graph_files, open_engine
from deployments.replica.batched import BatchedReplica, batcher_of, encoded_all
from deployments.replica.kinds import ReplicaKind, readings_of
from deployments.replica.tokens import TOKENIZER_FILE, Encoded, Side, WindowedTokens, cutting_tokenizer
from deployments.replica.variant import VariantRejected, check_answers, open_variant
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.manifest import ClassifierManifest, FunctionToApply
from gateway.model.messages import Failure, Work, parameters_of
from gateway.model.profile import LatencyProfile
from gateway.tasks.classify import ClassifyParameters, LabelScore, Truncation


class LabelScorer:
    """Tokenises texts and scores labels from logits. Safe to use from many threads, since it never changes."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        labels: tuple[str, ...],
        window: int,
        pad_id: int = 0,
        *,
        function: FunctionToApply = "softmax",
        side: Side = "right",
        types: bool = True,
    ) -> None:
        """Takes a tokenizer that truncates at `window` on that side and does not pad, as `open` makes it.

        `function` makes scores of logits where a request does not say which. Without `types` the checkpoint is told no
        token types, whatever its tokenizer.json gives.
        """
        self._tokens = WindowedTokens(tokenizer, window, side)
        self.labels = labels
        self.window = window
        self.pad_id = pad_id
        self.function = function
        self._types = types

    @classmethod
    def open(
        cls,
        tokenizer_file: Path,
        labels: tuple[str, ...],
        window: int,
        pad_id: int = 0,
        *,
        function: FunctionToApply = "softmax",
        side: Side = "right",
        types: bool = True,
    ) -> LabelScorer:
        """Loads a tokenizer.json, and replaces its truncation and padding by a cut at the window."""
        tokenizer = cutting_tokenizer(tokenizer_file, window, side)
        return cls(tokenizer, labels, window, pad_id, function=function, side=side, types=types)

    @classmethod
    def of(cls, folder: Path, manifest: ClassifierManifest) -> LabelScorer:
        """The scorer of a variant's folder."""
        return cls.open(
            folder / TOKENIZER_FILE,
            manifest.labels,
            manifest.max_tokens,
            manifest.pad_token_id,
            function=manifest.function_to_apply,
            side=manifest.truncation_side,
            types=manifest.token_types,
        )

    def encode(self, text: str, truncation: Truncation) -> Encoded | Failure:
        """Tokenises a text and cuts it to the window; TOO_LONG if it is longer and truncation is `error`."""
        return self._tokens.encode(text, cut=truncation != "error")

    def encode_pair(self, text: str, other: str, truncation: Truncation) -> Encoded | Failure:
        """Tokenises two texts as one input and cuts the longer first; TOO_LONG as `encode` says."""
        encoded = self._tokens.encode_pair(text, other, cut=truncation != "error")
        if self._types or isinstance(encoded, Failure):
            return encoded
        return replace(encoded, token_types=[0] * encoded.kept)

    def ids(self, text: str) -> list[int]:
        """The text's token ids, cut to the window."""
        return self._tokens.ids(text)

    def scores(self, logits: Logits, parameters: ClassifyParameters) -> tuple[LabelScore, ...]:
        """Scores labels from one row of logits: best first, at most `top_k`; equal scores keep the labels' order."""
        values = applied(parameters.function_to_apply or self.function, logits)
        best = sorted(range(len(values)), key=lambda i: -values[i])[: parameters.top_k]
        return tuple(LabelScore(self.labels[i], values[i]) for i in best)


def applied(function: FunctionToApply, logits: NDArray[np.floating[Any]]) -> list[float]:
    """Applies a function to one row of logits in float64, without overflow for large logits."""
    row: list[float] = logits.tolist()
    match function:
        case "softmax":
            largest = max(row)
            powers = [math.exp(value - largest) for value in row]
            total = math.fsum(powers)
            return [power / total for power in powers]
        case "sigmoid":
            return [1 / (1 + math.exp(-v)) if v >= 0 else math.exp(v) / (1 + math.exp(v)) for v in row]
        case "none":
            return row


@dataclass(frozen=True)
class OpenClassifier:
    """A classifier that has passed its checks, ready to serve."""

    manifest: ClassifierManifest
    engine: Engine
    scorer: LabelScorer
    profile: LatencyProfile


class ClassifierReplica(BatchedReplica[ClassifyParameters]):
    """Serves one classifier."""

    def __init__(self, entry: CatalogEntry, variant: OpenClassifier, max_queued_inputs: int, clock: Clock) -> None:
        self._scorer = variant.scorer
        batcher = batcher_of(entry, variant.engine, variant.profile, variant.scorer.pad_id, max_queued_inputs, clock)
        super().__init__(batcher, clock, readings_of(entry.tasks, variant))

    def encode(self, work: Work) -> tuple[ClassifyParameters, list[Encoded]] | Failure:
        """Tokenises the texts of a request, or gives the first failure."""
        parameters = parameters_of(work, ClassifyParameters)
        cut, seconds = parameters.truncation, parameters.second_at or (None,) * len(work.inputs)

        def encode(input_: tuple[str, int | None]) -> Encoded | Failure:
            text, at = input_
            if at is None:
                return self._scorer.encode(text, cut)
            return self._scorer.encode_pair(text[:at], text[at:], cut)

        encoded = encoded_all(list(zip(work.inputs, seconds, strict=True)), encode)
        return encoded if isinstance(encoded, Failure) else (parameters, encoded)

    def outputs(self, parameters: ClassifyParameters, logits: Sequence[Logits]) -> tuple[object, ...]:
        """The scored labels of each text."""
        return tuple(self._scorer.scores(row, parameters) for row in logits)


def open_classifier(folder: Path, threads: int) -> OpenClassifier:
    """Opens and checks a folder that must hold a classifier. Blocking. Raises VariantRejected."""
    opened = open_variant(folder, threads)
    if not isinstance(opened, OpenClassifier):
        raise VariantRejected(opened.manifest.checkpoint, "kind", "classifier", opened.manifest.kind)
    return opened


def _open(folder: Path, manifest: ClassifierManifest, threads: int, at_once: int) -> OpenClassifier:
    task = LabelScorer.of(folder, manifest)
    engine = open_engine(folder, manifest, threads, at_once)
    check_answers(manifest.checkpoint, manifest.self_test, engine, task.ids)
    return OpenClassifier(manifest, engine, task, LatencyProfile.from_document(manifest.profile))


def _files(manifest: ClassifierManifest) -> tuple[str, ...]:
    return (TOKENIZER_FILE, *graph_files(manifest.engine))


KIND = ReplicaKind(_files, _open, ClassifierReplica)
