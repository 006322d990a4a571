"""How well a ranker's variant agrees with its source: the same texts through both, sentence by sentence.

The variant runs as a replica will run it; the source comes in as a function, so nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from deployments.replica.summarize.ranking import Facts, Floats, Ranker, default_count, describe, unit_rows
from deployments.replica.summarize.sentences import split_sentences
from exporters.errors import Difference
from exporters.plan import Advance
from exporters.rouge import RougeL, lost, rouge_l_lost
from exporters.texts import SummarySet
from exporters.verify import RunRows, run_all
from gateway.model.manifest import ChoiceVerification, Precision

MOST_TEXTS = 100
MOST_SENTENCES = 60
"""Of one text: what a longer one has beyond that is left out for source and variant alike."""

WORST = 10
SHOWN_CHARACTERS = 80

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class ChoiceFloors:
    """What a variant must reach: the least share of sentences that both choose, the most ROUGE-L it may lose."""

    same_choice: float
    rouge_l_drop: float = 0.01


FLOORS = {Precision.FP32: ChoiceFloors(0.99), Precision.INT8: ChoiceFloors(0.85)}
"""In int8 the starters choose 98 % (one layer) and 91 % (four layers) of 126 sentences as in fp32; what is traded is a
near second. 0.85 is some two standard errors below; ROUGE-L judges what was traded."""


@dataclass(frozen=True)
class SplitText:
    """A text as its sentences, what is to be known of each, and its own summary where it has one."""

    sentences: tuple[str, ...]
    facts: Facts


@dataclass(frozen=True)
class SplitTexts:
    """The texts that a variant is verified on, cut into sentences; `summaries` is None where some text has none."""

    name: str
    texts: tuple[SplitText, ...]
    summaries: list[str] | None


@dataclass(frozen=True)
class ChoiceComparison:
    """A verification with what it found wrong: the broken floor in words, or None, and the worst texts."""

    verification: ChoiceVerification
    broken: str | None
    differences: tuple[Difference, ...]


def choice_floors(precision: Precision, floor: float | None, drop: float) -> ChoiceFloors:
    """The precision's own floor of agreement, unless another is asked for."""
    return ChoiceFloors(FLOORS[precision].same_choice if floor is None else floor, drop)


def split_texts(texts: SummarySet) -> SplitTexts:
    """The texts that have a sentence, cut into sentences as a replica cuts them."""
    found, summaries = [], texts.summaries
    kept: list[str] = []
    for at, one in enumerate(texts.texts):
        spans = split_sentences(one.text)[:MOST_SENTENCES]
        if spans:
            sentences = tuple(one.text[span.start : span.end] for span in spans)
            found.append(SplitText(sentences, describe(one.text, spans)))
            kept += [summaries[at]] if summaries else []
    return SplitTexts(texts.name, tuple(found), kept if summaries else None)


def vectors_of(texts: SplitTexts, encode: Encode, run: RunRows, advance: Advance) -> list[Floats]:
    """The vectors of every text's sentences, (sentences, dimensions) each."""
    rows = [encode(sentence) for text in texts.texts for sentence in text.sentences]
    vectors = run_all(rows, run, advance)
    ends = np.cumsum([len(text.sentences) for text in texts.texts])
    return np.split(vectors, ends[:-1])


def compare_choice(
    source: Sequence[Floats],
    variant: Sequence[Floats],
    texts: SplitTexts,
    ranker: Ranker,
    sentences: int,
    floors: ChoiceFloors,
) -> ChoiceComparison:
    """Judges what is chosen by the variant's vectors by what is by the source's, and by the texts' summaries.

    Of every text at most `sentences` are chosen, and no more than its length deserves.
    """
    counts = [min(sentences, default_count(len(text.sentences))) for text in texts.texts]

    def chosen(vectors: Sequence[Floats]) -> list[list[int]]:
        rows = zip(vectors, texts.texts, counts, strict=True)
        return [ranker.choose(one, text.facts, count) for one, text, count in rows]

    meant, said = chosen(source), chosen(variant)
    against = _against_summaries(meant, said, texts, floors)
    verification = ChoiceVerification(
        texts=len(texts.texts),
        data_set=texts.name,
        same_choice=sum(len({*m} & {*s}) for m, s in zip(meant, said, strict=True)) / sum(map(len, meant)),
        same_choice_floor=floors.same_choice,
        least_cosine=min(_least_cosine(one, other) for one, other in zip(source, variant, strict=True)),
        rouge_l=against.variant if against else None,
        source_rouge_l=against.source if against else None,
        rouge_l_drop_ceiling=against.drop_ceiling if against else floors.rouge_l_drop,
    )
    differences = [
        Difference(at, _only(m, s, text), _only(s, m, text))
        for at, (m, s, text) in enumerate(zip(meant, said, texts.texts, strict=True))
        if m != s
    ]
    finite = all(np.isfinite(vectors).all() for vectors in variant)
    return ChoiceComparison(verification, _broken(verification, finite), tuple(differences[:WORST]))


def _least_cosine(one: Floats, other: Floats) -> float:
    cosines = np.einsum("ij,ij->i", unit_rows(one), unit_rows(other))
    return float(np.clip(cosines, -1, 1).min())


def _against_summaries(
    meant: Sequence[Sequence[int]], said: Sequence[Sequence[int]], texts: SplitTexts, floors: ChoiceFloors
) -> RougeL | None:
    if not texts.summaries:
        return None

    def joined(chosen: Sequence[Sequence[int]]) -> list[str]:
        rows = zip(chosen, texts.texts, strict=True)
        return [" ".join(text.sentences[at] for at in places) for places, text in rows]

    return rouge_l_lost(joined(meant), joined(said), texts.summaries, floors.rouge_l_drop)


def _broken(found: ChoiceVerification, finite: bool) -> str | None:
    if not finite:
        return "some of its vectors are not numbers"
    if found.same_choice < found.same_choice_floor:
        return (
            f"{found.same_choice:.2%} of the sentences that the source chooses from {found.texts} texts are its choice "
            f"too, under the floor of {found.same_choice_floor:.2%}"
        )
    return lost(found)


def _only(mine: Sequence[int], its: Sequence[int], text: SplitText) -> str:
    """The first sentence that one chooses and the other does not."""
    at = next((place for place in mine if place not in its), None)
    return "(nothing more)" if at is None else text.sentences[at][:SHOWN_CHARACTERS]
