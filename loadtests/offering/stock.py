"""The texts that are offered: real, held-out ones, cut or joined to the number of words that is wanted.

It knows words, not tokens: a word is what stands between white space.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtests.bench.summaries import SHIPPED, Kind, mixed_texts
from loadtests.sentences import shuffled_texts

MIXED, ORDER_SEED = 400, 11
"""How many texts to summarise are shelved, half of them papers, and the seed of their order."""


@dataclass(frozen=True)
class Shelf:
    """Texts of one kind, end to end: all their words, and where each text begins."""

    words: tuple[str, ...]
    beginnings: tuple[int, ...]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Shelf:
        """Shelves texts that have words, in their order."""
        words: list[str] = []
        beginnings: list[int] = []
        for text in texts:
            beginnings.append(len(words))
            words += text.split()
        return cls(tuple(words), tuple(beginnings))

    def text(self, words: int, chance: random.Random) -> str:
        """So many words from the beginning of a text drawn by chance, and on into the texts after it."""
        at = chance.choice(self.beginnings)
        taken = self.words[at : at + words]
        while len(taken) < words:
            taken += self.words[: words - len(taken)]
        return " ".join(taken)


class Stock:
    """Every kind of text that a scenario may ask for."""

    def __init__(self, sentences: Shelf, domains: Mapping[str | None, Shelf]) -> None:
        """Sentences to classify; texts to summarise by their domain, of which None stands in for those it lacks."""
        self._sentences = sentences
        self._domains = domains

    def body(self, task: str, words: Sequence[int], domain: str | None, chance: random.Random) -> bytes:
        """The body of one request, as an ordinary client writes it: a text of each of these lengths."""
        summarize = task == "summarize"
        shelf = self._domains.get(domain, self._domains[None]) if summarize else self._sentences
        texts = [shelf.text(count, chance) for count in words]
        document: dict[str, object] = {"inputs": texts[0] if len(texts) == 1 else texts}
        if summarize and domain is not None:
            document["parameters"] = {"domain": domain}
        return json.dumps(document, ensure_ascii=False).encode()


def held_out() -> Stock:
    """Held-out sentences, papers and descriptions of software. Raises NoSentences or NoTexts."""
    mixed = mixed_texts(MIXED, ORDER_SEED, SHIPPED)
    shelves = {kind: Shelf.of([one.text for one in mixed if one.kind is kind]) for kind in Kind}
    return Stock(Shelf.of(shuffled_texts()), {None: shelves[Kind.PAPERS], "software": shelves[Kind.SOFTWARE]})
