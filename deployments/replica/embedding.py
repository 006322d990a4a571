"""An embedder's replica: cuts texts on the side asked for, runs batches, and gives vectors or their cosines.

One replica serves both tasks that read an embedder's vectors: `/embed` gives them, `/similarity` compares them. The
engine pools; vectors are normalised here, since a request may say whether they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from deployments.engines.base import Engine, Logits
from deployments.engines.opening import ONNX_FILE, open_engine
from deployments.replica.batched import BatchedReplica, batcher_of, encoded_all
from deployments.replica.kinds import ReplicaKind, readings_of
from deployments.replica.tokens import TOKENIZER_FILE, Encoded, Side, WindowedTokens
from deployments.replica.variant import check_answers
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.messages import Failure, Work, parameters_of
from gateway.model.profile import LatencyProfile
from gateway.tasks.embed import EMBED, EmbedderManifest, EmbedParameters
from gateway.tasks.similarity import SimilarityParameters

Vectors: TypeAlias = NDArray[np.float64]
EmbedderParameters: TypeAlias = EmbedParameters | SimilarityParameters

DECIMALS = 7
"""Decimals of a vector's numbers: as exact as fp32 where lengths are about 1, in half the characters of a double."""


@dataclass(frozen=True)
class TextReader:
    """Tokenises texts for one embedder: prompt in front, cut on either side."""

    right: WindowedTokens
    left: WindowedTokens
    prompts: dict[str, str]
    default_prompt: str | None

    @classmethod
    def open(cls, tokenizer_file: Path, window: int, prompts: dict[str, str], default: str | None) -> TextReader:
        """Loads a tokenizer.json twice, for both sides."""
        right, left = (WindowedTokens.open(tokenizer_file, window, side) for side in ("right", "left"))
        return cls(right, left, prompts, default)

    def encode(
        self, text: str, *, cut: bool = True, side: Side = "right", prompt: str | None = None
    ) -> Encoded | Failure:
        """Tokenises a text behind the prompt of that name, or the default one; `side` is where it may be cut."""
        name = prompt or self.default_prompt
        before = self.prompts.get(name, "") if name else ""
        tokens = self.right if side == "right" else self.left
        return tokens.encode(before + text, cut=cut)

    def ids(self, text: str) -> list[int]:
        """The text's token ids as a request without parameters gets them."""
        encoded = self.encode(text)
        assert isinstance(encoded, Encoded), "a text that may be cut is never refused"
        return encoded.token_ids


@dataclass(frozen=True)
class OpenEmbedder:
    """An embedder that has passed its checks, ready to serve."""

    manifest: EmbedderManifest
    engine: Engine
    reader: TextReader
    profile: LatencyProfile


class EmbedderReplica(BatchedReplica[EmbedderParameters]):
    """Serves one embedder."""

    def __init__(self, entry: CatalogEntry, variant: OpenEmbedder, max_queued_inputs: int, clock: Clock) -> None:
        manifest = variant.manifest
        self._reader = variant.reader
        self._normalized = manifest.normalized
        batcher = batcher_of(entry, variant.engine, variant.profile, manifest.pad_token_id, max_queued_inputs, clock)
        super().__init__(batcher, clock, readings_of(entry.tasks, variant))

    def encode(self, work: Work) -> tuple[EmbedderParameters, list[Encoded]] | Failure:
        """Tokenises the texts of a request, or gives the first failure."""
        reader, parameters = self._reader, self._parameters(work)
        if isinstance(parameters, EmbedParameters):
            cut, side, prompt = parameters.truncate, parameters.cut, parameters.prompt_name
            encoded = encoded_all(work.inputs, lambda text: reader.encode(text, cut=cut, side=side, prompt=prompt))
        else:
            encoded = encoded_all(work.inputs, lambda text: reader.encode(text, cut=parameters.truncate))
        return encoded if isinstance(encoded, Failure) else (parameters, encoded)

    def outputs(self, parameters: EmbedderParameters, logits: Sequence[Logits]) -> tuple[object, ...]:
        """The vector of each text; of a similarity, the cosine of the first text with each of the others."""
        vectors = np.stack(logits).astype(np.float64)
        if isinstance(parameters, SimilarityParameters):
            return tuple(cosines(vectors[0], vectors[1:]))
        unit = self._normalized if parameters.normalize is None else parameters.normalize
        return tuple(written(unit_length(vectors) if unit else vectors))

    def _parameters(self, work: Work) -> EmbedderParameters:
        if work.task == EMBED.name:
            return parameters_of(work, EmbedParameters)
        return parameters_of(work, SimilarityParameters)


def unit_length(vectors: Vectors) -> Vectors:
    """Scales each row to length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Vectors = vectors / np.where(lengths > 0, lengths, 1.0)
    return scaled


def cosines(one: Vectors, others: Vectors) -> list[float]:
    """The cosine of one vector with each row of others, from -1 to 1."""
    found: list[float] = written(np.clip(unit_length(others) @ unit_length(one), -1.0, 1.0))
    return found


def written(numbers: Vectors) -> list[float]:
    """Rows of numbers as JSON writes them, rounded to `DECIMALS`."""
    rounded: list[float] = np.round(numbers, DECIMALS).tolist()
    return rounded


def _open(folder: Path, manifest: EmbedderManifest, threads: int, at_once: int) -> OpenEmbedder:
    reader = TextReader.open(folder / TOKENIZER_FILE, manifest.max_tokens, manifest.prompts, manifest.default_prompt)
    engine = open_engine(folder, manifest, threads, at_once)
    check_answers(manifest.checkpoint, manifest.self_test, engine, reader.ids)
    return OpenEmbedder(manifest, engine, reader, LatencyProfile.from_document(manifest.profile))


KIND = ReplicaKind(lambda manifest: (TOKENIZER_FILE, ONNX_FILE), _open, EmbedderReplica)
