"""Greedy and beam search as a step machine: token scores in, the next tokens to try out. Pure numpy.

`BeamSearch` knows no engine; `write` is the plainest way to run one, to its end, on the calling thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deployments.engines.base import Logits, Seq2SeqEngine, TokenIds
from deployments.replica.tokens import TextTokens
from gateway.model.manifest import GenerationRules

BLOCK = 256  # scores a block when the best few of a vocabulary are looked for: near the root of a usual vocabulary


@dataclass(frozen=True, slots=True)
class SearchRules:
    """What a checkpoint's generation config says of its search. Lengths count new tokens: not the one it starts with,
    but an end and a forced first token. Raises ValueError for less than one beam or token.

    `early_stopping` and `length_penalty` mean what they do in transformers; one beam is a greedy search, to which
    neither applies. A forced token overrides every other rule; a suppressed one is written only where forced.
    """

    decoder_start_token_id: int
    eos_token_ids: tuple[int, ...]
    pad_token_id: int
    max_new_tokens: int
    min_new_tokens: int = 0
    beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    no_repeat_ngram_size: int = 0
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    suppressed_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Checks what no search could run with."""
        if self.beams < 1 or self.max_new_tokens < 1:
            raise ValueError(f"a search of {self.beams} beams and {self.max_new_tokens} new tokens")

    def forced(self, length: int) -> int | None:
        """The token that must follow so many new ones, or None: the last place counts for more than the first."""
        if length == self.max_new_tokens - 1 and self.forced_eos_token_id is not None:
            return self.forced_eos_token_id
        return self.forced_bos_token_id if length == 0 else None


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished row: its new tokens, its score by the length penalty, and whether it chose its end itself."""

    tokens: tuple[int, ...]
    score: np.float32
    ended: bool


class BeamSearch:
    """One text's search: give `pending` to the decoder's step, feed what it returns, until it is done.

    It may be abandoned after any step: `best` is then the best that was found so far. Not for several threads at once.
    """

    def __init__(self, rules: SearchRules) -> None:
        """Ready for the first step, which continues row 0 with the start token."""
        self._rules = rules
        self._ends = frozenset(rules.eos_token_ids)
        self._rows = np.full((1, rules.max_new_tokens + 1), rules.decoder_start_token_id, dtype=np.int64)
        self._origins: TokenIds = np.zeros(1, dtype=np.int64)
        self._scores: Logits = np.zeros(1, dtype=np.float32)  # of each row, its tokens' log-probabilities added up
        self._finished: list[Hypothesis] = []  # the best first, no more than beams
        self._steps = 0
        self._done = False

    @property
    def pending(self) -> tuple[TokenIds, TokenIds]:
        """Tokens and origins (rows,) for the decoder's next step. Raises RuntimeError once the search is done."""
        if self._done:
            raise RuntimeError("the search is done")
        return self._rows[:, self._steps].copy(), self._origins

    @property
    def done(self) -> bool:
        """Whether no further step can change `best`."""
        return self._done

    @property
    def steps(self) -> int:
        """How many times it was fed; no row is longer than that."""
        return self._steps

    @property
    def ended(self) -> bool:
        """Whether `best` chose its end itself, rather than being cut or forced to end at the last place."""
        return self._leading().ended

    def best(self) -> tuple[int, ...]:
        """The new tokens of the best row so far, finished or not, without start, end and padding; empty before step 1.

        A finished row is the best where no unfinished one scores higher for its length.
        """
        left_out = self._ends | {self._rules.decoder_start_token_id, self._rules.pad_token_id}
        return tuple(token for token in self._leading().tokens if token not in left_out)

    def feed(self, logits: Logits) -> None:
        """Takes the logits (rows, vocabulary) of the pending step, unchanged. Raises RuntimeError once done, and
        ValueError for another number of rows.
        """
        if self._done:
            raise RuntimeError("the search is done")
        if len(logits) != len(self._rows):
            raise ValueError(f"logits of {len(logits)} rows for {len(self._rows)} pending ones")
        if self._rules.beams == 1:
            self._feed_greedy(logits[0])
        else:
            self._feed_beams(logits)

    def _feed_greedy(self, scores: Logits) -> None:
        """Appends the best token, and is done at an end or at the last place."""
        token = self._rules.forced(self._steps)
        if token is None:
            token = int(scores.argmax())
            banned = self._banned(0)
            if token in banned:
                scores = scores.copy()
                scores[banned] = -np.inf
                token = int(scores.argmax())
        self._steps += 1
        self._rows[0, self._steps] = token
        last = self._steps == self._rules.max_new_tokens
        if token in self._ends or last:
            self._done = True
            self._finished = [self._hypothesis(self._rows[0], np.float32(0))]

    def _feed_beams(self, logits: Logits) -> None:
        """Keeps the best rows that go on, moves the best that ended to the finished, and sees whether to stop."""
        rules = self._rules
        scores, origins, tokens = self._continuations(logits)
        self._steps += 1
        rows = self._rows[origins]
        rows[:, self._steps] = tokens
        last = self._steps == rules.max_new_tokens
        ends = np.array([last or token in self._ends for token in tokens.tolist()], dtype=np.bool_)
        for at in np.flatnonzero(ends[: rules.beams]):  # one that ends below the best `beams` is dropped
            self._finished.append(self._hypothesis(rows[at], self._by_length(scores[at])))
        self._finished.sort(key=lambda one: one.score, reverse=True)  # stable: of equals, the older stays in front
        del self._finished[rules.beams :]
        going_on = np.flatnonzero(~ends)[: rules.beams]
        if len(going_on) == 0:  # all have ended, or every token is banned
            self._done = True
            return
        self._rows, self._origins, self._scores = rows[going_on], origins[going_on], scores[going_on]
        self._done = not self._worth_going_on()

    def _continuations(self, logits: Logits) -> tuple[Logits, TokenIds, TokenIds]:
        """The best continuations of all rows, the best first: their scores, the rows they continue, their tokens.

        Twice as many as beams (more for several end tokens), so that enough go on whichever of them end.
        """
        rules = self._rules
        forced = rules.forced(self._steps)
        if forced is not None:
            order = np.argsort(-self._scores, kind="stable")
            return self._scores[order], order, np.full(len(order), forced, dtype=np.int64)
        wanted = rules.beams * max(2, 1 + len(rules.eos_token_ids))
        shifted = logits - logits.max(axis=1, keepdims=True)
        norms = np.log(np.exp(shifted).sum(axis=1))
        tokens, origins, scores = [], [], []
        for row, values in enumerate(shifted):
            values[self._banned(row)] = -np.inf
            found = best_places(values, wanted)
            tokens.append(found)
            origins.append(np.full(len(found), row, dtype=np.int64))
            scores.append((values[found] - norms[row]) + self._scores[row])
        merged = np.concatenate(scores)
        order = np.argsort(-merged, kind="stable")[:wanted]
        return merged[order], np.concatenate(origins)[order], np.concatenate(tokens)[order]

    def _banned(self, row: int) -> list[int]:
        """The tokens that must not come next in a row."""
        rules = self._rules
        banned = list(rules.suppressed_token_ids)
        if self._steps < rules.min_new_tokens:
            banned.extend(rules.eos_token_ids)
        if rules.no_repeat_ngram_size:
            banned.extend(repeating(self._rows[row, : self._steps + 1], rules.no_repeat_ngram_size))
        return banned

    def _worth_going_on(self) -> bool:
        """Whether the best row that goes on may still beat the worst finished one: transformers' three heuristics."""
        rules = self._rules
        if len(self._finished) < rules.beams:
            return True
        if rules.early_stopping is True:
            return False
        far = rules.early_stopping == "never" and rules.length_penalty > 0
        length = rules.max_new_tokens if far else self._steps
        return bool(self._by_length(self._scores[0], length) > self._finished[-1].score)

    def _by_length(self, score: np.float32, length: int | None = None) -> np.float32:
        """A score with the length penalty of so many new tokens, by default those there are."""
        return score / np.float32((self._steps if length is None else length) ** self._rules.length_penalty)

    def _hypothesis(self, row: NDArray[np.int64], score: np.float32) -> Hypothesis:
        """A row that goes no further."""
        tokens = tuple(row[1 : self._steps + 1].tolist())
        cut = self._steps == self._rules.max_new_tokens and self._rules.forced_eos_token_id is not None
        return Hypothesis(tokens, score, tokens[-1] in self._ends and not cut)

    def _leading(self) -> Hypothesis:
        """The best there is: when done the first of the finished, before that perhaps the first that goes on."""
        if self._done and self._finished:
            return self._finished[0]
        going_on = Hypothesis(
            tuple(self._rows[0, 1 : self._steps + 1].tolist()),
            self._by_length(self._scores[0]) if self._steps else np.float32(0),
            ended=False,
        )
        return max([*self._finished[:1], going_on], key=lambda one: one.score)


def repeating(row: NDArray[np.int64], size: int) -> list[int]:
    """The tokens that would make the row's last `size` tokens ones it has already had in this order."""
    starts = len(row) - size + 1
    if starts < 1:
        return []
    same = np.ones(starts, dtype=np.bool_)
    for place in range(size - 1):
        same &= row[place : place + starts] == row[starts + place]
    found: list[int] = row[size - 1 :][same].tolist()
    return found


def best_places(values: Logits, wanted: int) -> TokenIds:
    """Where the `wanted` greatest of the values (vocabulary,) stand, no order promised, and never at minus infinity.

    The best of each block give a floor that at least so many values reach, in one pass at memory's speed; a partition
    of the whole vocabulary takes several times as long.
    """
    blocks = len(values) // BLOCK
    places: TokenIds = np.arange(len(values)) if blocks < wanted else np.empty(0, dtype=np.int64)
    if blocks >= wanted:
        tops = np.append(values[: blocks * BLOCK].reshape(blocks, BLOCK).max(axis=1), values[blocks * BLOCK :])
        floor = np.partition(tops, len(tops) - wanted)[len(tops) - wanted]
        places = np.flatnonzero(values >= floor)
    found = values[places]
    places = places[found > -np.inf]
    if len(places) > wanted:
        places = places[np.argpartition(-values[places], wanted - 1)[:wanted]]
    return places


GOLDEN_TOKENS = 24
"""A golden text is written on to so many tokens at most: enough to find a fault, and short at every start."""


def search_rules(
    generation: GenerationRules,
    pad_token_id: int,
    *,
    beams: int | None = None,
    max_new_tokens: int | None = None,
    min_new_tokens: int | None = None,
) -> SearchRules:
    """The search that a checkpoint's rules describe; its own beams and lengths where they are not given.

    At most the checkpoint's own `max_new_tokens` are written, and a least number above the most counts as the most.
    """
    most = min(generation.max_new_tokens, max_new_tokens or generation.max_new_tokens)
    least = generation.min_new_tokens if min_new_tokens is None else min_new_tokens
    return SearchRules(
        decoder_start_token_id=generation.decoder_start_token_id,
        eos_token_ids=generation.eos_token_ids,
        pad_token_id=pad_token_id,
        max_new_tokens=most,
        min_new_tokens=min(least, most),
        beams=beams or generation.num_beams,
        length_penalty=generation.length_penalty,
        early_stopping=generation.early_stopping,
        no_repeat_ngram_size=generation.no_repeat_ngram_size,
        forced_bos_token_id=generation.forced_bos_token_id,
        forced_eos_token_id=generation.forced_eos_token_id,
    )


def source_ids(tokens: TextTokens, text: str, prefix: str, window: int) -> list[int]:
    """The token ids of a text behind the checkpoint's prefix, its head where it passes the window."""
    return tokens.cut(tokens.encode(prefix + text), window)


def write(engine: Seq2SeqEngine, token_ids: Sequence[int], rules: SearchRules) -> tuple[int, ...]:
    """What the engine writes after a text's token ids, without start and end. Blocking, for as long as that takes."""
    decoder, search = engine.encode(np.asarray(token_ids, dtype=np.int64)), BeamSearch(rules)
    while not search.done:
        search.feed(decoder.step(*search.pending))
    return search.best()


def write_greedily(engine: Seq2SeqEngine, token_ids: Sequence[int], rules: SearchRules) -> tuple[int, ...]:
    """The same with one beam, whatever the rules say of beams."""
    return write(engine, token_ids, replace(rules, beams=1))


def write_golden(
    engine: Seq2SeqEngine, token_ids: Sequence[int], generation: GenerationRules, pad_token_id: int
) -> tuple[int, ...]:
    """The first tokens that are written greedily after a golden text's."""
    return write_greedily(
        engine, token_ids, search_rules(generation, pad_token_id, beams=1, max_new_tokens=GOLDEN_TOKENS)
    )
