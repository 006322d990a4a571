"""Questions with the sentences that answer them: of Debian's packages to fit scores on, of BIG-bench to score on.

Both are fetched when they are used, and neither is kept here. BIG-bench's files ask that they be in no training data:
nothing is fitted on them.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.replica.sentences import split_sentences
from exporters.starter.software.descriptions import cleaned, counts, fetch_lists, read_packages, read_sections
from exporters.starter.zero_shot.material import SECTIONS, SEED, benchmark

TASK = "benchmark_tasks/disfl_qa/task.json"
UNKNOWN = "unknown"
"""What the benchmark answers where the context has no answer."""

TOGETHER = 8
"""Sentences of one context to fit on: each of another package of one section."""

CONTEXTS = 5
"""Contexts of each section."""

LEAST_SENTENCES = 3
"""Sentences of a context that is scored on; of fewer, any order is nearly right."""


@dataclass(frozen=True)
class Asked:
    """A question, the sentences of its context, and the places of those that have the answer; none if it has none.

    `answer` is its text, where it is marked.
    """

    question: str
    sentences: Sequence[str]
    right: frozenset[int]
    answer: str = ""


def synopses(folder: Path) -> list[Asked]:
    """Synopses of packages, as questions for the first sentence of their description among those of their section.

    Raises NoDescriptions.
    """
    found, of = read_packages(fetch_lists(folder)), read_sections(folder)
    by_section: defaultdict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    for package in found:
        text, section = cleaned(package.description), of.get(package.name, "")
        if section in SECTIONS and counts(text, package.synopsis):
            by_section[section].setdefault(package.source, (package.synopsis, sentences_of(text)[0]))
    chance = random.Random(SEED)
    asked = []
    for section in SECTIONS:
        drawn = chance.sample(sorted(set(by_section[section].values())), TOGETHER * CONTEXTS)
        for at in range(0, len(drawn), TOGETHER):
            together = drawn[at : at + TOGETHER]
            sentences = [sentence for _, sentence in together]
            asked += [Asked(synopsis, sentences, frozenset([place])) for place, (synopsis, _) in enumerate(together)]
    return asked


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, as a replica divides it."""
    return [text[span.start : span.end] for span in split_sentences(text)]


def questions(cache: Path, most: int) -> list[Asked]:
    """At most `most` questions of Disfl-QA as BIG-bench has it, evenly spaced; those with an answer and those without.

    A question is left out if its context has fewer than `LEAST_SENTENCES`, or no sentence holds its answer. Raises
    NotFetched or CannotBuild.
    """
    found = [one for example in benchmark(TASK, cache)["examples"] if (one := _asked(**example)) is not None]
    count = min(most, len(found))
    return [found[at * len(found) // count] for at in range(count)]


def _asked(input: str, target: str) -> Asked | None:
    question, _, context = input.partition("context:")
    sentences = sentences_of(context.strip())
    right = frozenset(at for at, sentence in enumerate(sentences) if _plain(target) in _plain(sentence))
    if len(sentences) < LEAST_SENTENCES or (target != UNKNOWN and not right):
        return None
    if target == UNKNOWN:
        return Asked(question.strip(), sentences, frozenset())
    return Asked(question.strip(), sentences, right, target)


def _plain(text: str) -> str:
    """A text with single spaces at both ends, in lower case, so that only whole words are found in it."""
    return f" {' '.join(text.split()).lower()} "
