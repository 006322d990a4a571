"""A filler's replica: reads texts with masks, runs them in batches, and answers with the likeliest tokens.

For the same logits, scores, tokens and texts are those of transformers' `fill-mask` pipeline. The engine gives logits
of masks alone, in their order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from deployments.engines.base import Engine, Logits
from deployments.engines.opening import ONNX_FILE, open_engine
from deployments.replica.batched import BatchedReplica, batcher_of, encoded_all
from deployments.replica.kinds import ReplicaKind
from deployments.replica.tokens import TOKENIZER_FILE, Encoded, TextEncoder
from deployments.replica.variant import Glimpse, check_answers
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.messages import Failure, FailureKind, Work, parameters_of
from gateway.model.profile import LatencyProfile
from gateway.tasks.fill import MASK, FilledMask, FillerManifest, FillParameters

SPACES = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)
"""What a tokenizer of transformers replaces in a text that it cleans, in order."""


class MaskReader:
    """Reads texts with masks and writes texts, for one checkpoint. Safe to use from many threads."""

    def __init__(self, tokenizer_file: Path, window: int, mask: str, pad_id: int, *, cleans: bool) -> None:
        """Loads a tokenizer.json twice: to read, its mask alone is special in a text; to write, it is as it is.

        `mask` is the token, and `cleans` says whether texts are written without spaces before punctuation.
        """
        self._pad_id = pad_id
        document = json.loads(tokenizer_file.read_bytes())
        for token in document["added_tokens"]:
            token["special"] = token["special"] and token["content"] != mask
        reading = Tokenizer.from_str(json.dumps(document))
        reading.no_padding()
        reading.no_truncation()
        found = reading.token_to_id(mask)
        if found is None:
            raise ValueError(f"{tokenizer_file.name} has no token {mask!r}")
        self.mask_id: int = found
        self._encoder = TextEncoder(reading)
        self._reading = reading
        self._writing = Tokenizer.from_file(str(tokenizer_file))
        self._window = window
        self._mask = mask
        self._cleans = cleans

    def encode(self, text: str) -> Encoded | Failure:
        """Tokenises a text, in which each mask stands for the checkpoint's own; TOO_LONG if it is over the window.

        REFUSED if it spells the mask otherwise, as in wide letters that a tokenizer makes narrow: no limit counted it.
        """
        text, masks = MASK.subn(lambda found: self._mask, text)
        ids = self._encoder.encode(text).ids
        if ids.count(self.mask_id) > masks:
            return Failure(FailureKind.REFUSED, "a text spells the mask in other letters than [MASK] or <mask>")
        if len(ids) > self._window:
            return Failure(FailureKind.TOO_LONG, "over the checkpoint's window", len(ids), self._window)
        return Encoded(ids, len(ids))

    def masked(self, text: str) -> list[int]:
        """The token ids of a text, cut to the window, with a mask in place of its middle token."""
        encoding = self._encoder.encode(text)
        own = [at for at, sequence in enumerate(encoding.sequence_ids) if sequence == 0]
        ids, cut = list(encoding.ids), max(len(encoding.ids) - self._window, 0)
        if not own:
            return ids
        del ids[own[-1] + 1 - cut : own[-1] + 1]
        ids[own[(len(own) - cut) // 2]] = self.mask_id
        return ids

    def targets(self, words: Sequence[str]) -> list[int]:
        """The tokens of words, each once: the word itself, or else its first token; none for a word without any."""
        found: dict[int, None] = {}
        for word in words:
            whole = self._reading.token_to_id(word)
            parts = [whole] if whole is not None else self._reading.encode(word, add_special_tokens=False).ids
            found.update(dict.fromkeys(parts[:1]))
        return list(found)

    def unpadded(self, ids: Sequence[int]) -> list[int]:
        """Token ids without padding, which may be among the likeliest tokens."""
        return [one for one in ids if one != self._pad_id]

    def write(self, ids: Sequence[int], *, whole: bool) -> str:
        """The text of token ids; special ones are left out unless it is to be `whole`."""
        text: str = self._writing.decode(list(ids), skip_special_tokens=not whole)
        for old, new in SPACES if self._cleans else ():
            text = text.replace(old, new)
        return text


@dataclass(frozen=True)
class OpenFiller:
    """A filler that has passed its checks, ready to serve."""

    manifest: FillerManifest
    engine: Engine
    reader: MaskReader
    profile: LatencyProfile


@dataclass(frozen=True, slots=True)
class _Asked:
    """What answers are made of beside logits: how they are asked for, and the tokens of the texts."""

    parameters: FillParameters
    rows: Sequence[Encoded]


class FillerReplica(BatchedReplica[_Asked]):
    """Serves one filler."""

    answers_take_long = True

    def __init__(self, entry: CatalogEntry, variant: OpenFiller, max_queued_inputs: int, clock: Clock) -> None:
        manifest = variant.manifest
        self._reader = variant.reader
        batcher = batcher_of(entry, variant.engine, variant.profile, manifest.pad_token_id, max_queued_inputs, clock)
        super().__init__(batcher, clock)

    def encode(self, work: Work) -> tuple[_Asked, list[Encoded]] | Failure:
        """Tokenises the texts of a request, or gives the first failure."""
        encoded = encoded_all(work.inputs, self._reader.encode)
        if isinstance(encoded, Failure):
            return encoded
        return _Asked(parameters_of(work, FillParameters), encoded), encoded

    def outputs(self, asked: _Asked, logits: Sequence[Logits]) -> tuple[object, ...]:
        """The words for each mask of each text."""
        targets = None if asked.parameters.targets is None else self._reader.targets(asked.parameters.targets)
        return tuple(
            filled(self._reader, row.token_ids, found, asked.parameters.top_k, targets)
            for row, found in zip(asked.rows, logits, strict=True)
        )


def filled(
    reader: MaskReader, ids: Sequence[int], logits: Logits, most: int, targets: Sequence[int] | None = None
) -> list[list[FilledMask]]:
    """The likeliest tokens for each mask of a text, by logits (masks or more, vocabulary): all, or the `targets` alone.

    Every mask is filled by itself: the others stay in its texts, where special tokens are then written too.
    """
    masks = [at for at, one in enumerate(ids) if one == reader.mask_id]
    return [
        [
            FilledMask(
                score,
                token,
                reader.write([token], whole=True),
                reader.write(reader.unpadded([*ids[:at], token, *ids[at + 1 :]]), whole=len(masks) > 1),
            )
            for token, score in _likeliest(logits[nth], most, targets)
        ]
        for nth, at in enumerate(masks)
    ]


def _likeliest(logits: Logits, most: int, targets: Sequence[int] | None) -> list[tuple[int, float]]:
    """The likeliest tokens with their probabilities among the whole vocabulary, likeliest first."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    chosen = np.arange(len(powers)) if targets is None else np.asarray(targets, dtype=np.int64)
    scores = powers[chosen] / powers.sum()
    some = np.argpartition(-scores, most)[:most] if most < len(scores) else np.arange(len(scores))
    order = some[np.argsort(-scores[some], kind="stable")]
    return list(zip(chosen[order].tolist(), scores[order].tolist(), strict=True))


def _open(folder: Path, manifest: FillerManifest, threads: int, at_once: int) -> OpenFiller:
    file = folder / TOKENIZER_FILE
    reader = MaskReader(
        file, manifest.max_tokens, manifest.mask_token, manifest.pad_token_id, cleans=manifest.cleans_spaces
    )
    engine = open_engine(folder, manifest, threads, at_once)
    check_answers(manifest.checkpoint, manifest.self_test, Glimpse(engine, axis=2), reader.masked)
    return OpenFiller(manifest, engine, reader, LatencyProfile.from_document(manifest.profile))


KIND = ReplicaKind(lambda manifest: (TOKENIZER_FILE, ONNX_FILE), _open, FillerReplica)
