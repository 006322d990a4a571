"""Makes entities of labelled tokens as transformers' pipeline does, and puts their kinds in their place.

Each strategy gives what `TokenClassificationPipeline` of transformers 4.57 gives for the same logits, but for words
with combining marks: that takes them for the end of the word before, and leaves the marks of a last letter out of its
place. Two things are added: redaction, and that a text over the window is not cut. Knows no engine and no window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from unicodedata import category

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from deployments.engines.base import Logits
from deployments.replica.tagging.reading import ReadText
from deployments.replica.tokens import past_marks
from gateway.tasks.tokens import OUTSIDE, Aggregation, Entity, RedactedText

Scores: TypeAlias = NDArray[np.float64]

BEGINS, CONTINUES = "B-", "I-"
"""What a label begins with that begins an entity, or continues one. A label without either continues."""


@dataclass(frozen=True, slots=True)
class _Unit:
    """A token or a word: its label with the score, its pieces and place, and the index of its first token."""

    label: str
    score: float
    pieces: Sequence[str]
    start: int
    end: int
    index: int


class Tagger:
    """Reads labels off logits for one checkpoint. Safe to use from many threads, since it never changes."""

    def __init__(self, tokenizer: Tokenizer, labels: tuple[str, ...], unknown_id: int | None) -> None:
        """`labels` are in the order of the logits; `unknown_id` is the token of what the vocabulary lacks."""
        self._labels = labels
        self._unknown_id = unknown_id
        decoder = tokenizer.decoder
        self._written: Callable[[list[str]], str] = " ".join if decoder is None else decoder.decode
        self._continuing: str | None = getattr(tokenizer.model, "continuing_subword_prefix", None)

    def entities(
        self, read: ReadText, logits: Logits, aggregation: Aggregation, ignored: Sequence[str]
    ) -> list[Entity]:
        """The entities of a text in order, those with an ignored label left out."""
        scores, whole = probabilities(logits), aggregation not in ("none", "simple")
        words = self._words(read) if whole else [[at] for at in range(len(read.ids))]
        units = self._units(read, _of_words(scores, words, aggregation) if whole else scores, words)
        if aggregation == "none":
            return [_of_token(one) for one in units if one.label not in ignored]
        return [self._joined(group, whole) for group in _groups(units) if _group_kind(group) not in ignored]

    def redacted(
        self, read: ReadText, logits: Logits, aggregation: Aggregation, own: Aggregation, ignored: Sequence[str]
    ) -> RedactedText:
        """The text with every entity replaced by its kind, and the entities.

        Single tokens (`none`) are joined for the text, as the checkpoint's `own` strategy does.
        """
        found = self.entities(read, logits, aggregation, ignored)
        joining = (own if own != "none" else "simple") if aggregation == "none" else aggregation
        joined = found if joining == aggregation else self.entities(read, logits, joining, ignored)
        return RedactedText(with_kinds(read.text, joined), found)

    def _units(self, read: ReadText, scores: Scores, words: Sequence[Sequence[int]]) -> list[_Unit]:
        """Tokens or words with the best label of each row of scores."""
        best = scores.argmax(axis=1)
        surest = scores[np.arange(len(best)), best].tolist()
        return [
            _Unit(
                self._labels[label],
                score,
                [self._piece(read, one) for one in at],
                read.places[at[0]][0],
                read.places[at[-1]][1],
                read.first + at[0],
            )
            for at, label, score in zip(words, best.tolist(), surest, strict=True)
        ]

    def _piece(self, read: ReadText, at: int) -> str:
        """A token as the tokenizer writes it; of what the vocabulary lacks, the text itself."""
        return read.text[slice(*read.places[at])] if read.ids[at] == self._unknown_id else read.pieces[at]

    def _words(self, read: ReadText) -> list[list[int]]:
        """The places of the tokens of each word among all tokens of the text."""
        words: list[list[int]] = []
        for at in range(len(read.ids)):
            if words and self._continues(read, at):
                words[-1].append(at)
            else:
                words.append([at])
        return words

    def _continues(self, read: ReadText, at: int) -> bool:
        """True if a token continues the word of the one before it."""
        if read.ids[at] == self._unknown_id:
            return False
        if self._continuing:
            return read.pieces[at].startswith(self._continuing)
        start, _ = read.places[at]
        return start > 0 and " " not in read.text[start - 1 : start + 1]

    def _joined(self, group: Sequence[_Unit], whole: bool) -> Entity:
        """One entity of neighbours, which are `whole` words, or tokens."""
        pieces = [self._written(list(one.pieces)) if whole else one.pieces[0] for one in group]
        return Entity(
            entity_group=_group_kind(group),
            score=sum(one.score for one in group) / len(group),
            word=self._written(pieces),
            start=group[0].start,
            end=group[-1].end,
        )


def probabilities(logits: Logits) -> Scores:
    """The softmax of each token's logits."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True, initial=-np.inf))
    found: Scores = powers / powers.sum(axis=-1, keepdims=True)
    return found


def _of_words(scores: Scores, words: Sequence[Sequence[int]], aggregation: Aggregation) -> Scores:
    """The scores of each word: those of its first token, of the token that is the surest, or the mean of all."""
    if aggregation == "average" and words:
        starts, counts = [at[0] for at in words], np.asarray([[len(at)] for at in words])
        means: Scores = np.add.reduceat(scores, starts, axis=0) / counts
        return means
    surest = scores.max(axis=1)
    return scores[[max(at, key=surest.__getitem__) if aggregation == "max" else at[0] for at in words]]


def with_kinds(text: str, entities: Sequence[Entity]) -> str:
    """The text with `[KIND]` in place of each entity.

    Entities of one kind are replaced together if only punctuation is between them, as in an address of e-mail. White
    space around an entity stays, and marks that combine with its last letter go with it. A token that belongs to
    nothing stays, even where a request asks for it.
    """
    found: list[str] = []
    done, last = 0, None
    for one in entities:
        if one.entity_group == OUTSIDE or one.end <= done:
            continue
        start, end = _visible(text, max(one.start, done), one.end)
        between = text[done:start]
        if one.entity_group != last or any(not category(part).startswith("P") for part in between):
            found += [between, f"[{one.entity_group}]"]
        done, last = end, one.entity_group
    return "".join([*found, text[done:]])


def _visible(text: str, start: int, end: int) -> tuple[int, int]:
    """A place without the white space at its ends, and with the marks that combine with its last letter."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, past_marks(text, end, len(text))


def _of_token(one: _Unit) -> Entity:
    return Entity(entity=one.label, score=one.score, index=one.index, word=one.pieces[0], start=one.start, end=one.end)


def _groups(units: Sequence[_Unit]) -> list[list[_Unit]]:
    """Neighbours of one kind together; a label that begins an entity begins a group."""
    groups: list[list[_Unit]] = []
    for one in units:
        if groups and not one.label.startswith(BEGINS) and _kind(one.label) == _kind(groups[-1][-1].label):
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _group_kind(group: Sequence[_Unit]) -> str:
    return group[0].label.split("-", 1)[-1]


def _kind(label: str) -> str:
    return label[2:] if label.startswith((BEGINS, CONTINUES)) else label
