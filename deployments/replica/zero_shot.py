"""How replicas answer `/zero-shot`: an embedder by nearness of vectors, a classifier of entailment by its logits.

The vectors of sentences about labels are remembered, within bounds, so that a request with known labels runs its texts
alone. Neither texts nor labels leave this module but as tokens and in the answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from deployments.engines.base import Logits
from deployments.replica.batched import Reading, encoded_all, input_report
from deployments.replica.classify import LabelScorer, OpenClassifier, applied
from deployments.replica.embedding import OpenEmbedder, TextReader, Vectors, unit_length
from deployments.replica.tokens import Encoded
from gateway.model.messages import Failure, InputReport, Work, parameters_of
from gateway.tasks.classify import LabelScore
from gateway.tasks.zero_shot import DEFAULT_TEMPLATE, MOST_REMEMBERED, PLACE, ZeroShotParameters, entailment_of

Vector: TypeAlias = NDArray[np.float32]

MOST_BYTES = 32 * 1024 * 1024
"""Bytes of remembered vectors and their sentences. Set by hand: `MOST_REMEMBERED` of 768 numbers take under half."""

TEMPERATURE = 0.058
"""What cosines are divided by before the softmax.

It is fitted, as are the next two, by `python -m exporters.starter.zero_shot`: on 600 descriptions of Debian's packages,
with the 15 topics of their sections as labels, over the three starter embedders together.
"""

MIDDLE, SLOPE = 0.151, 14.5
"""The sigmoid of a label alone: 0.5 at the cosine `MIDDLE`.

In the fit, right and wrong labels had the same weight. So a score is the chance that a label is right where half of
those asked for are, on data like that of the fit.
"""


class LabelVectors:
    """The vectors of the sentences asked for last, within bounds of number and bytes. Any thread may use it."""

    def __init__(self, most: int = MOST_REMEMBERED, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._kept: OrderedDict[str, Vector] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def known(self, sentences: Sequence[str]) -> dict[str, Vector]:
        """The vectors of those sentences that are remembered."""
        with self._lock:
            found = {sentence: self._kept[sentence] for sentence in sentences if sentence in self._kept}
            for sentence in found:
                self._kept.move_to_end(sentence)
        return found

    def remember(self, vectors: Mapping[str, Vector]) -> None:
        """Takes vectors in, and forgets the longest unused for what is over the bounds."""
        with self._lock:
            for sentence, vector in vectors.items():
                if sentence not in self._kept:
                    self._kept[sentence] = vector
                    self._bytes += _bytes_of(sentence, vector)
            while self._kept and (len(self._kept) > self._most or self._bytes > self._most_bytes):
                self._bytes -= _bytes_of(*self._kept.popitem(last=False))


def _bytes_of(sentence: str, vector: Vector) -> int:
    return vector.nbytes + len(sentence.encode("utf-8", "replace"))


@dataclass(frozen=True)
class _Compared:
    """A request as an embedder reads it: the vectors that are known, and the sentences that run after the texts."""

    parameters: ZeroShotParameters
    sentences: Sequence[str]
    known: Mapping[str, Vector]
    missing: Sequence[str]


class ByVectors(Reading[_Compared]):
    """Scores labels by the cosine of the text's vector with that of the sentence about each label."""

    def __init__(self, reader: TextReader, vectors: LabelVectors | None = None) -> None:
        self._reader = reader
        self._vectors = LabelVectors() if vectors is None else vectors

    def encode(self, work: Work) -> tuple[_Compared, list[Encoded]] | Failure:
        """Tokenises the texts, cut to the window, and then the sentences that are not known."""
        parameters = parameters_of(work, ZeroShotParameters)
        texts, sentences = divided(work, parameters)
        known = self._vectors.known(sentences)
        missing = [sentence for sentence in dict.fromkeys(sentences) if sentence not in known]
        encoded = encoded_all([*texts, *missing], self._reader.encode)
        if isinstance(encoded, Failure):
            return encoded
        return _Compared(parameters, sentences, known, missing), encoded

    def outputs(self, asked: _Compared, logits: Sequence[Logits]) -> tuple[object, ...]:
        """The scored labels of each text; the vectors of new sentences are remembered."""
        vectors = unit_length(np.stack(logits).astype(np.float64))
        texts = len(vectors) - len(asked.missing)
        new = dict(zip(asked.missing, vectors[texts:].astype(np.float32), strict=True))
        self._vectors.remember({sentence: vector.copy() for sentence, vector in new.items()})
        of_label = np.stack([asked.known[one] if one in asked.known else new[one] for one in asked.sentences])
        return tuple(
            ranked(asked.parameters.labels, scores_of(row, alone=asked.parameters.multi_label or len(row) == 1))
            for row in vectors[:texts] @ of_label.T
        )

    def report(self, asked: _Compared, encoded: Sequence[Encoded]) -> InputReport:
        """What was read of the texts; the labels are not counted, whether they ran or were known."""
        return input_report(encoded[: len(encoded) - len(asked.missing)])


def scores_of(cosines: Vectors, *, alone: bool) -> list[float]:
    """Scores of labels by their cosines with one text: shares of 1, or each `alone`."""
    if alone:
        return applied("sigmoid", SLOPE * (cosines - MIDDLE))
    return applied("softmax", cosines / TEMPERATURE)


class ByEntailment(Reading[ZeroShotParameters]):
    """Scores labels by whether a text entails the sentence about each, as transformers' zero-shot pipeline does."""

    def __init__(self, scorer: LabelScorer, entailment: int) -> None:
        """`entailment` is the place of that label."""
        self._scorer = scorer
        self._entailment = entailment
        self._contradiction = -1 if entailment == 0 else 0

    @classmethod
    def of(cls, scorer: LabelScorer) -> ByEntailment:
        """The reading of a classifier that has a label for entailment, as every replica that serves the task."""
        entailment = entailment_of(scorer.labels)
        assert entailment is not None, "a variant that lacks it is rejected before it serves"
        return cls(scorer, entailment)

    def encode(self, work: Work) -> tuple[ZeroShotParameters, list[Encoded]] | Failure:
        """Tokenises each text with each sentence as a pair; the longer of the two is cut to the window."""
        parameters = parameters_of(work, ZeroShotParameters)
        texts, sentences = divided(work, parameters)
        if parameters.template is None:
            sentences = [DEFAULT_TEMPLATE.replace(PLACE, label) for label in sentences]
        pairs = [(text, sentence) for text in texts for sentence in sentences]
        encoded = encoded_all(pairs, lambda pair: self._scorer.encode_pair(*pair, "longest_first"))
        return encoded if isinstance(encoded, Failure) else (parameters, encoded)

    def characters(self, work: Work) -> int:
        """Every text and every sentence is tokenised once for each pair that it is in."""
        parameters = parameters_of(work, ZeroShotParameters)
        texts, sentences = divided(work, parameters)
        return len(sentences) * sum(map(len, texts)) + len(texts) * sum(map(len, sentences))

    def report(self, asked: ZeroShotParameters, encoded: Sequence[Encoded]) -> InputReport:
        """What was read of the texts, each beside its first label."""
        return input_report(encoded[:: len(asked.labels)])

    def outputs(self, asked: ZeroShotParameters, logits: Sequence[Logits]) -> tuple[object, ...]:
        """The scored labels of each text."""
        count = len(asked.labels)
        of_texts = (logits[at : at + count] for at in range(0, len(logits), count))
        return tuple(ranked(asked.labels, self._scores(rows, asked.multi_label)) for rows in of_texts)

    def _scores(self, rows: Sequence[Logits], multi_label: bool) -> list[float]:
        """Entailment against contradiction of each label alone, or entailment shared out among the labels."""
        if multi_label or len(rows) == 1:
            both = [self._contradiction, self._entailment]
            return [applied("softmax", row[both])[1] for row in rows]
        return applied("softmax", np.asarray([row[self._entailment] for row in rows]))


def divided(work: Work, parameters: ZeroShotParameters) -> tuple[Sequence[str], Sequence[str]]:
    """The texts of a request, and the sentences about its labels."""
    texts = len(work.inputs) - parameters.shared
    return work.inputs[:texts], work.inputs[texts:]


def ranked(labels: Sequence[str], scores: Sequence[float]) -> tuple[LabelScore, ...]:
    """Labels with their scores, best first; equal ones in the order asked."""
    order = sorted(range(len(labels)), key=lambda at: -scores[at])
    return tuple(LabelScore(labels[at], scores[at]) for at in order)


def _of_embedder(variant: OpenEmbedder) -> ByVectors:
    return ByVectors(variant.reader)


def _of_classifier(variant: OpenClassifier) -> ByEntailment:
    return ByEntailment.of(variant.scorer)


READINGS = {"embedder": _of_embedder, "classifier": _of_classifier}
