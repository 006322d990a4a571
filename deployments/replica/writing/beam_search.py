"""Greedy and beam search, one step at a time: takes token scores, gives the next tokens to try. Pure numpy.

`BeamSearch` knows no engine. `write` runs a whole search with one on the calling thread.
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

BLOCK = 256  # scores in a block of `best_places`: about the square root of a usual vocabulary's size


@dataclass(frozen=True, slots=True)
class SearchRules:
    """The rules of a search, as in a checkpoint's generation config. Raises ValueError for less than one beam or token.

    Lengths count new tokens: without the start token, but with an end token and a forced first one. `early_stopping`
    and `length_penalty` mean what they do in transformers. One beam is a greedy search, to which neither applies. A
    forced token overrides every other rule; a suppressed token is written only if it is forced. `renormalized` scores
    have the probabilities of banned tokens spread over the others.
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
    renormalized: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for less than one beam or token."""
        if self.beams < 1 or self.max_new_tokens < 1:
            raise ValueError(f"a search of {self.beams} beams and {self.max_new_tokens} new tokens")

    def forced(self, length: int) -> int | None:
        """The token that must follow `length` new ones, or None. The rule for the last place wins over the first's."""
        if length == self.max_new_tokens - 1 and self.forced_eos_token_id is not None:
            return self.forced_eos_token_id
        return self.forced_bos_token_id if length == 0 else None


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished row: its new tokens, its score after the length penalty, and whether it chose its end itself."""

    tokens: tuple[int, ...]
    score: np.float32
    ended: bool


class BeamSearch:
    """The search of one text: run `pending` through the decoder and `feed` the logits, until it is `done`.

    You may stop after any step; `best` is then the best row so far. Not for several threads at once.
    """

    def __init__(self, rules: SearchRules) -> None:
        """Prepares the first step, which continues row 0 with the start token."""
        self._rules = rules
        self._ends = frozenset(rules.eos_token_ids)
        self._left_out = self._ends | {rules.decoder_start_token_id, rules.pad_token_id}
        self._rows = np.full((1, rules.max_new_tokens + 1), rules.decoder_start_token_id, dtype=np.int64)
        self._origins: TokenIds = np.zeros(1, dtype=np.int64)
        self._scores: Logits = np.zeros(1, dtype=np.float32)  # the sum of each row's log-probabilities
        self._finished: list[Hypothesis] = []  # best first, at most `beams`
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
        """True if no further step can change `best`."""
        return self._done

    @property
    def steps(self) -> int:
        """How many steps were fed. No row is longer."""
        return self._steps

    @property
    def ended(self) -> bool:
        """True if `best` chose its end itself, rather than being cut or forced to end at the last place."""
        return self._leading().ended

    def best(self) -> tuple[int, ...]:
        """The new tokens of the best row so far, without start, end and padding; empty before the first step.

        A finished row is the best unless an unfinished one scores higher for its length.
        """
        left_out = self._left_out
        return tuple(token for token in self._leading().tokens if token not in left_out)

    def settled(self) -> tuple[int, ...]:
        """The tokens with which `best` begins, whatever later steps find: those that all rows have in common.

        Rows that ended count too, while they may still be the best.
        """
        if self._done:
            return self.best()
        rows = self._rows[:, 1 : self._steps + 1]
        common: list[int] = rows[0, : _length_in_common(rows)].tolist()
        for one in self._finished:
            pairs = zip(common, one.tokens, strict=False)
            common = common[: next((at for at, (mine, its) in enumerate(pairs) if mine != its), len(one.tokens))]
        left_out = self._left_out
        return tuple(token for token in common if token not in left_out)

    def feed(self, logits: Logits) -> None:
        """Takes the logits (rows, vocabulary) of the pending step, and leaves them unchanged.

        Raises RuntimeError once done, and ValueError for another number of rows.
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
        """Appends the best token; done at an end token or at the last place."""
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
        """Keeps the best unfinished rows, collects the best that ended, and decides whether to stop."""
        rules = self._rules
        scores, origins, tokens = self._continuations(logits)
        self._steps += 1
        rows = self._rows[origins]
        rows[:, self._steps] = tokens
        last = self._steps == rules.max_new_tokens
        ends = np.array([last or token in self._ends for token in tokens.tolist()], dtype=np.bool_)
        for at in np.flatnonzero(ends[: rules.beams]):  # an end below the best `beams` is dropped
            self._finished.append(self._hypothesis(rows[at], self._by_length(scores[at])))
        self._finished.sort(key=lambda one: one.score, reverse=True)  # stable: equal scores keep the older first
        del self._finished[rules.beams :]
        going_on = np.flatnonzero(~ends)[: rules.beams]
        if len(going_on) == 0:  # all have ended, or every token is banned
            self._done = True
            return
        self._rows, self._origins, self._scores = rows[going_on], origins[going_on], scores[going_on]
        self._done = not self._worth_going_on()

    def _continuations(self, logits: Logits) -> tuple[Logits, TokenIds, TokenIds]:
        """The best continuations of all rows, best first: their scores, the rows they continue, their tokens.

        There are twice as many as beams (more for several end tokens), so that enough go on if some end.
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
            if rules.renormalized:
                norms[row] = np.log(np.exp(values).sum())
            found = best_places(values, wanted)
            tokens.append(found)
            origins.append(np.full(len(found), row, dtype=np.int64))
            scores.append((values[found] - norms[row]) + self._scores[row])
        merged = np.concatenate(scores)
        order = np.argsort(-merged, kind="stable")[:wanted]
        return merged[order], np.concatenate(origins)[order], np.concatenate(tokens)[order]

    def _banned(self, row: int) -> list[int]:
        """Lists the tokens that must not come next in a row."""
        rules = self._rules
        banned = list(rules.suppressed_token_ids)
        if self._steps < rules.min_new_tokens:
            banned.extend(rules.eos_token_ids)
        if rules.no_repeat_ngram_size:
            banned.extend(repeating(self._rows[row, : self._steps + 1], rules.no_repeat_ngram_size))
        return banned

    def _worth_going_on(self) -> bool:
        """True if the best unfinished row may still beat the worst finished one, by transformers' three heuristics."""
        rules = self._rules
        if len(self._finished) < rules.beams:
            return True
        if rules.early_stopping is True:
            return False
        far = rules.early_stopping == "never" and rules.length_penalty > 0
        length = rules.max_new_tokens if far else self._steps
        return bool(self._by_length(self._scores[0], length) > self._finished[-1].score)

    def _by_length(self, score: np.float32, length: int | None = None) -> np.float32:
        """Applies the length penalty for `length` new tokens, by default the current number."""
        return score / np.float32((self._steps if length is None else length) ** self._rules.length_penalty)

    def _hypothesis(self, row: NDArray[np.int64], score: np.float32) -> Hypothesis:
        """Makes the hypothesis of a row that has ended."""
        tokens = tuple(row[1 : self._steps + 1].tolist())
        cut = self._steps == self._rules.max_new_tokens and self._rules.forced_eos_token_id is not None
        return Hypothesis(tokens, score, tokens[-1] in self._ends and not cut)

    def _leading(self) -> Hypothesis:
        """The best row: once done the best finished one, before that the better of it and the best unfinished one."""
        if self._done and self._finished:
            return self._finished[0]
        going_on = Hypothesis(
            tuple(self._rows[0, 1 : self._steps + 1].tolist()),
            self._by_length(self._scores[0]) if self._steps else np.float32(0),
            ended=False,
        )
        return max([*self._finished[:1], going_on], key=lambda one: one.score)


def _length_in_common(rows: NDArray[np.int64]) -> int:
    """How many of their first tokens all rows (rows, tokens) have in common."""
    differ = np.flatnonzero((rows != rows[0]).any(axis=0))
    return int(differ[0]) if len(differ) else rows.shape[1]


def repeating(row: NDArray[np.int64], size: int) -> list[int]:
    """Lists the tokens that would repeat an n-gram of `size` tokens that the row already has."""
    starts = len(row) - size + 1
    if starts < 1:
        return []
    same = np.ones(starts, dtype=np.bool_)
    for place in range(size - 1):
        same &= row[place : place + starts] == row[starts + place]
    found: list[int] = row[size - 1 :][same].tolist()
    return found


def best_places(values: Logits, wanted: int) -> TokenIds:
    """The places of the `wanted` greatest values (vocabulary,), in any order, without those at minus infinity.

    The maxima of blocks give a floor that at least `wanted` values reach, in one pass at memory speed. A partition of
    the whole vocabulary takes several times as long.
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
"""Most tokens of a golden summary: enough to find a fault, and quick at every start of a replica."""


def search_rules(
    generation: GenerationRules,
    pad_token_id: int,
    *,
    beams: int | None = None,
    max_new_tokens: int | None = None,
    min_new_tokens: int | None = None,
) -> SearchRules:
    """Makes the search of a checkpoint's rules, with its own beams and lengths where none are given.

    `max_new_tokens` is at most the checkpoint's own, and `min_new_tokens` at most `max_new_tokens`.
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
        suppressed_token_ids=generation.suppressed_token_ids,
        renormalized=generation.renormalized,
    )


def source_ids(tokens: TextTokens, text: str, prefix: str, window: int) -> list[int]:
    """The token ids of a prefix and a text, cut to the window."""
    return tokens.cut(tokens.encode(prefix + text), window)


def write(engine: Seq2SeqEngine, token_ids: Sequence[int], rules: SearchRules) -> tuple[int, ...]:
    """Writes the whole answer to a text's token ids, without start and end tokens. Blocking."""
    decoder, search = engine.encode(np.asarray(token_ids, dtype=np.int64)), BeamSearch(rules)
    while not search.done:
        search.feed(decoder.step(*search.pending))
    return search.best()


def write_greedily(engine: Seq2SeqEngine, token_ids: Sequence[int], rules: SearchRules) -> tuple[int, ...]:
    """Writes like `write`, but with one beam whatever the rules say."""
    return write(engine, token_ids, replace(rules, beams=1))


def write_golden(
    engine: Seq2SeqEngine, token_ids: Sequence[int], generation: GenerationRules, pad_token_id: int
) -> tuple[int, ...]:
    """Writes the first `GOLDEN_TOKENS` tokens of a golden summary greedily."""
    return write_greedily(
        engine, token_ids, search_rules(generation, pad_token_id, beams=1, max_new_tokens=GOLDEN_TOKENS)
    )
