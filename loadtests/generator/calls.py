"""Builds all requests before a run starts: held-out texts, bodies and headers.

Knows the headers of the HTTP interface. Knows no connection and no outcome.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

from gateway.model.request import BUDGET, CHECKPOINT, MODE, PERCENTILE
from gateway.tasks import TASKS
from loadtests.bench.summaries import SHIPPED, Kind, mixed_texts
from loadtests.sentences import shuffled_texts
from loadtests.workload.arrivals import Offered
from loadtests.workload.scenario import SPECIAL_TOKENS, TOKENS_PER_WORD

MIXED, ORDER_SEED = 400, 11
"""The number of mixed texts to summarise, half of them papers, and the seed of their order."""


@dataclass(frozen=True)
class Shelf:
    """Texts of one kind, concatenated: all their words, and the index at which each text begins."""

    words: tuple[str, ...]
    beginnings: tuple[int, ...]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Shelf:
        """Concatenates texts in order; each must have words."""
        words: list[str] = []
        beginnings: list[int] = []
        for text in texts:
            beginnings.append(len(words))
            words += text.split()
        return cls(tuple(words), tuple(beginnings))

    def text(self, words: int, chance: random.Random) -> str:
        """This many words from the start of a random text, continued into the texts after it."""
        at = chance.choice(self.beginnings)
        taken = self.words[at : at + words]
        while len(taken) < words:
            taken += self.words[: words - len(taken)]
        return " ".join(taken)


class Stock:
    """The texts of every kind that a scenario may request."""

    def __init__(self, sentences: Shelf, domains: Mapping[str | None, Shelf]) -> None:
        """Sentences, and by domain the documents that tasks which write read; the key None serves any other domain."""
        self._sentences = sentences
        self._domains = domains

    def body(
        self,
        task: str,
        words: Sequence[int],
        domain: str | None,
        chance: random.Random,
        parameters: Mapping[str, object] = MappingProxyType({}),
    ) -> bytes:
        """The JSON body of one request, with one text of each of these lengths in words, and parameters."""
        known = TASKS[task]
        writes = bool(known.finish_reasons)
        shelf = self._domains.get(domain, self._domains[None]) if writes else self._sentences
        texts = [shelf.text(count, chance) for count in words]
        document = known.body.document_of(texts)
        given: Mapping[str, object] = document.get("parameters", {})  # type: ignore[assignment]
        asked = {**given, **parameters, **({"domain": domain} if writes and domain is not None else {})}
        if asked:
            document["parameters"] = asked
        return json.dumps(document, ensure_ascii=False).encode()


def held_out() -> Stock:
    """The held-out sentences, papers and software descriptions. Raises NoSentences or NoTexts."""
    mixed = mixed_texts(MIXED, ORDER_SEED, SHIPPED)
    shelves = {kind: Shelf.of([one.text for one in mixed if one.kind is kind]) for kind in Kind}
    return Stock(Shelf.of(shuffled_texts()), {None: shelves[Kind.PAPERS], "software": shelves[Kind.SOFTWARE]})


Mode: TypeAlias = Literal["strict", "best-effort"]
STRICT: Mode = "strict"
BEST_EFFORT: Mode = "best-effort"


@dataclass(frozen=True)
class Handling:
    """How checkpoints are chosen: by a gateway, or by a pin for each class. Reports show `label`.

    The gateway chooses for a class without a pin. `mode` overrides the scenario's. `url` is that of another gateway
    than the experiment's, which runs another policy.
    """

    label: str
    pins: Mapping[int, str] = field(default_factory=dict)
    mode: Mode | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One request ready to send, `due_s` after the start of the run; `kind` is its class in the mixture.

    A `shadowed` request that is refused is sent once more.
    """

    sequence: int
    kind: int
    due_s: float
    task: str
    budget_s: float
    body: bytes
    headers: Mapping[str, str]
    shadowed: bool = False


def calls_of(
    offered: Sequence[Offered], handling: Handling, stock: Stock, shadow_share: float, seed: int
) -> list[Call]:
    """Every request of a run, in order of `due_s`. Equal seeds give equal bodies, whatever the handling."""
    texts, shadows = random.Random(f"texts {seed}"), random.Random(f"shadows {seed}")
    calls = []
    for one in offered:
        strict = one.strict if handling.mode is None else handling.mode == STRICT
        body = stock.body(one.task, [words_of(one.tokens)] * one.texts, one.domain, texts, one.parameters)
        drawn = shadows.random() < shadow_share
        headers = headers_of(one, strict, handling.pins.get(one.kind))
        calls.append(
            Call(
                one.sequence, one.kind, one.arrived_s, one.task, one.budget_s, body, headers, shadowed=drawn and strict
            )
        )
    return calls


def words_of(tokens: int) -> int:
    """The words in a text of this many tokens, at least 1; the inverse of a scenario's rule."""
    return max(1, round((tokens - SPECIAL_TOKENS) / TOKENS_PER_WORD))


def headers_of(offered: Offered, strict: bool, pin: str | None) -> dict[str, str]:
    """The headers that carry a request's budget, mode, percentile and pin."""
    headers = {
        BUDGET: budget_text(offered.budget_s),
        MODE: STRICT if strict else BEST_EFFORT,
        PERCENTILE: f"{offered.percentile:g}",
    }
    return headers if pin is None else {**headers, CHECKPOINT: pin}


def budget_text(budget_s: float) -> str:
    """A budget as its header value: milliseconds with three decimals."""
    return f"{budget_s * 1000:.3f}"
