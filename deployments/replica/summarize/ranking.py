"""Picks the most important sentences of a text: scores sentence embeddings linearly, and avoids repeats.

Pure numpy; knows no encoders, tokenizers or deadlines. It works with the sentences that were embedded in time. Time and
memory grow linearly with the number of sentences.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.replica.sentences import CLOSERS, TERMINATORS, SentenceSpan

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

SCHEMA = 1
FEATURES = (
    "centrality",  # cosine with the mean of the embedded sentences
    "relative_centrality",  # centrality in standard deviations from the text's mean
    "first",  # the first sentence
    "inverse_place",  # 1 / (1 + place)
    "opening",  # exp(-place / 3)
    "beginning",  # exp(-place / 10)
    "progress",  # 0 at the first sentence, 1 at the last
    "progress_squared",
    "log_words",
    "log_words_squared",
    "short",  # under 6 words
    "long",  # over 50 words
    "fragment",  # ends in no punctuation
    "question",
    "dangling",  # opens with a word that refers to the sentence before
)
DEFAULT_COUNT = 3
SAME = 0.97
"""Cosine from which two sentences count as the same, so that only one is chosen."""

_LAST_RESORT = 1_000.0
_DANGLING = re.compile(
    r"\W*(?:this|that|these|those|it|its|he|she|his|her|they|their|them|such|but|and|or|so|however|therefore|thus|hence"
    r"|also|moreover|furthermore|additionally|besides|instead|then|otherwise|still|yet|nevertheless|nonetheless"
    r"|meanwhile|consequently|for example|for instance|in addition|on the other hand|in contrast|similarly|likewise"
    r"|here|there)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Facts:
    """The features of a text's sentences that need no embedding: one element a sentence, in source order."""

    words: NDArray[np.int64]
    fragment: Flags
    question: Flags
    dangling: Flags

    def __len__(self) -> int:
        return len(self.words)


def describe(text: str, spans: Sequence[SentenceSpan]) -> Facts:
    """Finds the facts of every sentence of a text. Words are separated by whitespace."""
    sentences = [text[span.start : span.end] for span in spans]
    endings = [sentence[-8:].rstrip(CLOSERS)[-1:] or "-" for sentence in sentences]
    return Facts(
        words=np.array([len(sentence.split()) for sentence in sentences], dtype=np.int64),
        fragment=np.array([ending not in TERMINATORS for ending in endings], dtype=np.bool_),
        question=np.array([ending in "?？" for ending in endings], dtype=np.bool_),
        dangling=np.array([_DANGLING.match(sentence) is not None for sentence in sentences], dtype=np.bool_),
    )


def default_count(sentences: int) -> int:
    """The default length of a summary: three sentences, at most half of the text, at least one."""
    return max(1, min(DEFAULT_COUNT, sentences // 2))


@dataclass(frozen=True)
class Ranker:
    """Scores sentences in several views, and chooses those with a high sum of scores or the best score in one view.

    Each view is linear: `weights` [views, len(FEATURES)] applies to `FEATURES`, `own` [views, dimensions] to a
    sentence's unit-length embedding, `before` and `after` to those of its neighbours. `spread` (0 to 1) is the weight
    of the best in one view against the sum over views. `redundancy` is the cost of a cosine of 1 with a chosen
    sentence, in standard deviations of the scores.
    """

    weights: Floats
    own: Floats
    before: Floats
    after: Floats
    spread: float
    redundancy: float

    @property
    def dimensions(self) -> int:
        """The length of an embedding."""
        return int(self.own.shape[1])

    @classmethod
    def load(cls, path: Path) -> Ranker:
        """Reads a ranker's JSON file. Raises `OSError`, or `ValueError` if it is not a ranker of this schema."""
        try:
            said = json.loads(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path.name} is not JSON: {error}") from error
        if not isinstance(said, dict) or said.get("schema") != SCHEMA:
            raise ValueError(f"{path.name} is not a ranker of schema {SCHEMA}")
        if said.get("features") != list(FEATURES):
            raise ValueError(f"{path.name} was made for other features than {', '.join(FEATURES)}")
        views, dimensions = _size(path, "views", said), _size(path, "dimensions", said)
        spread, redundancy = (said.get(name) for name in ("spread", "redundancy"))
        spread, redundancy = (
            float(x) for x in _numbers(path, "spread and redundancy", [[spread, redundancy]], 1, 2)[0]
        )
        if not 0 <= spread <= 1 or redundancy < 0:
            raise ValueError(f"{path.name}: spread is not from 0 to 1, or redundancy is negative")
        weights = _numbers(path, "weights", said.get("weights"), views, len(FEATURES))
        own, before, after = (
            _numbers(path, name, said.get(name), views, dimensions) for name in ("own", "before", "after")
        )
        return cls(weights, own, before, after, spread, redundancy)

    def save(self, path: Path) -> None:
        """Writes the JSON file that `load` reads. Equal rankers give equal bytes."""
        tables = {"weights": self.weights, "own": self.own, "before": self.before, "after": self.after}
        content = {
            "schema": SCHEMA,
            "views": len(self.weights),
            "dimensions": self.dimensions,
            "features": list(FEATURES),
            "spread": self.spread,
            "redundancy": self.redundancy,
            **{name: [[float(f"{x:.5g}") for x in row] for row in table] for name, table in tables.items()},
        }
        path.write_text(json.dumps(content) + "\n", encoding="utf-8")

    def choose(
        self,
        embeddings: Floats,
        facts: Facts,
        count: int,
        max_words: int | None = None,
        positions: Sequence[int] | None = None,
    ) -> list[int]:
        """Chooses at most `count` sentences, fewer if the rest repeats or is too long; gives ascending positions.

        `embeddings` is [n, dimensions], of any scale. Row i belongs to sentence `positions[i]` of the text that `facts`
        describes, by default to sentence i. Only these n can be chosen. `max_words` limits the words of all chosen
        sentences together; if no sentence fits, the answer is empty. The choice is greedy, by maximal marginal
        relevance (Carbonell and Goldstein, 1998); equal sentences go to the earliest. Raises `ValueError` for another
        shape, positions that do not ascend within the text, and a count under 1.
        """
        places = np.arange(len(embeddings)) if positions is None else np.asarray(positions, dtype=np.int64)
        if embeddings.ndim != 2 or embeddings.shape != (len(places), self.dimensions):
            raise ValueError(f"embeddings of shape {embeddings.shape}, not ({len(places)}, {self.dimensions})")
        if len(places) and (places[0] < 0 or places[-1] >= len(facts) or (np.diff(places) <= 0).any()):
            raise ValueError(f"positions do not ascend within the text's {len(facts)} sentences")
        if count < 1:
            raise ValueError("a summary has at least one sentence")
        if not len(places):
            return []
        units = unit_rows(embeddings)
        words = facts.words[places]
        unreadable = (words < 4) | (facts.fragment[places] & (words < 12))  # headings, numbers, cut ends
        most_words = math.inf if max_words is None else max_words
        choice = _Choice(standardised(self.scores(units, facts, places)), units, words, unreadable, self.redundancy)
        return [int(place) for place in places[choice.greedy(count, most_words, self.spread)]]

    def scores(self, units: Floats, facts: Facts, places: NDArray[np.int64]) -> Floats:
        """Scores each embedded sentence in each view: [n, views], with n at least 1."""
        follows = np.diff(places) == 1  # row i + 1 is the sentence after row i
        own, before, after = units @ self.own.T, units @ self.before.T, units @ self.after.T
        scores: Floats = own + features(units, facts, places) @ self.weights.T
        scores[1:][follows] += before[:-1][follows]
        scores[:-1][follows] += after[1:][follows]
        return scores


@dataclass(frozen=True)
class _Choice:
    """The sentences to choose from: standardised scores [n, views], unit embeddings, words, and which read badly."""

    scores: Floats
    units: Floats
    words: NDArray[np.int64]
    unreadable: Flags
    redundancy: float

    def greedy(self, count: int, words_left: float, spread: float) -> list[int]:
        """Chooses rows one by one, and gives them ascending.

        Each next row has the most gain: its sum of scores, and how far it exceeds the best chosen one in each view.
        """
        total = standardised(self.scores.sum(axis=1, keepdims=True))[:, 0] - _LAST_RESORT * self.unreadable
        reached = self.scores.min(axis=0)
        likeness = np.zeros(len(total), dtype=np.float32)
        out = np.zeros(len(total), dtype=np.bool_)
        chosen: list[int] = []
        while len(chosen) < count:
            out |= self.words > words_left
            if out.all():
                break
            best_of_some = np.maximum(self.scores - reached, 0).mean(axis=1)
            gain = (1 - spread) * total + spread * best_of_some - self.redundancy * likeness
            best = int(np.argmax(np.where(out, -np.inf, gain)))
            chosen.append(best)
            words_left -= int(self.words[best])
            cosines = self.units @ self.units[best]
            out |= cosines >= SAME
            out[best] = True
            likeness = np.maximum(likeness, cosines)
            reached = np.maximum(reached, self.scores[best])
        return sorted(chosen)


def features(units: Floats, facts: Facts, places: NDArray[np.int64]) -> Floats:
    """Computes `FEATURES` of sentences with unit-length embeddings: [n, len(FEATURES)], with n at least 1."""
    mean = unit_rows(units.mean(axis=0, keepdims=True))[0]
    centrality = units @ mean
    place = places.astype(np.float32)
    progress = place / max(len(facts) - 1, 1)
    words = facts.words[places]
    log_words = np.log(np.maximum(words, 1))
    columns = (
        centrality,
        standardised(centrality),
        places == 0,
        1 / (1 + place),
        np.exp(-place / 3),
        np.exp(-place / 10),
        progress,
        progress**2,
        log_words,
        log_words**2,
        words < 6,
        words > 50,
        facts.fragment[places],
        facts.question[places],
        facts.dangling[places],
    )
    return np.stack(columns, axis=1).astype(np.float32)


def unit_rows(rows: Floats) -> Floats:
    """Scales rows to length 1. A row of length 0, or with a number that is not finite, becomes zeros."""
    peaks = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)  # scale to peaks of 1 first, so no square overflows
    sound = np.isfinite(peaks) & (peaks > 0)
    scaled = np.divide(rows, peaks, out=np.zeros(rows.shape, dtype=np.float32), where=sound)
    lengths = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, None]
    units: Floats = scaled / np.maximum(lengths, 1.0)
    return units


def standardised(columns: Floats) -> Floats:
    """Shifts columns to mean 0 and scales them to standard deviation 1. An almost constant column becomes zeros."""
    centred = columns - columns.mean(axis=0)
    deviations = centred.std(axis=0)
    steady = deviations <= 1e-6
    result: Floats = np.where(steady, np.float32(0), centred / np.where(steady, np.float32(1), deviations))
    return result


def _size(path: Path, name: str, said: dict[str, Any]) -> int:
    size = said.get(name)
    if type(size) is not int or size < 1:
        raise ValueError(f"{path.name} gives no positive whole number of {name}")
    return size


def _numbers(path: Path, name: str, said: object, rows: int, columns: int) -> Floats:
    """Checks a table of finite numbers. Raises `ValueError` for anything else."""
    if not isinstance(said, list) or not all(isinstance(row, list) for row in said):
        raise ValueError(f"{path.name}: {name} is not a table")
    if len(said) != rows or any(len(row) != columns for row in said):
        raise ValueError(f"{path.name}: {name} is not {rows} rows of {columns}")
    if not all(type(value) in (int, float) and abs(value) < 1e6 for row in said for value in row):
        raise ValueError(f"{path.name}: {name} does not hold sound numbers alone")
    return np.array(said, dtype=np.float32)
