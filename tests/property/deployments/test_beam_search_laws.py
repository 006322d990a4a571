"""Laws of beam search for any scores and any rules, whenever it is interrupted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from deployments.engines.base import Logits, TokenIds
from deployments.replica.writing.beam_search import BeamSearch, SearchRules

VOCABULARY = 40  # more than the longest row has tokens, so that a rule never bans them all
START, PAD, ENDS = 0, 1, (2, 3)


class TableDecoder:
    """A `Decoder` whose logits follow from a row's last two tokens, by a table drawn from a seed."""

    def __init__(self, seed: int, sharpness: float) -> None:
        self._table = np.random.default_rng(seed).normal(size=(97, VOCABULARY)).astype(np.float32) * sharpness
        self._before: TokenIds = np.zeros(1, dtype=np.int64)
        self._last: TokenIds = np.zeros(1, dtype=np.int64)

    def step(self, tokens: TokenIds, origins: TokenIds) -> Logits:
        """The row of the table that two tokens name."""
        self._before, self._last = self._last[origins], tokens
        found: Logits = self._table[(self._before * VOCABULARY + self._last) % 97].astype(np.float32)
        return found


@st.composite
def rules(draw: st.DrawFn) -> SearchRules:
    """Any rules that fit the vocabulary; rarely contradictory ones too, such as an end that is required too early."""
    return SearchRules(
        START,
        draw(st.sampled_from([ENDS, ENDS[:1], ()])),
        PAD,
        max_new_tokens=draw(st.integers(1, 14)),
        min_new_tokens=draw(st.integers(0, 6)),
        beams=draw(st.integers(1, 5)),
        length_penalty=draw(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0])),
        early_stopping=draw(st.sampled_from([False, True, "never"])),
        no_repeat_ngram_size=draw(st.integers(0, 3)),
        forced_bos_token_id=draw(st.sampled_from([None, 7])),
        forced_eos_token_id=draw(st.sampled_from([None, ENDS[0]])),
        suppressed_token_ids=draw(st.sampled_from([(), (5, 9)])),
    )


decoders = st.builds(lambda seed, sharp: (seed, sharp), st.integers(0, 9999), st.sampled_from([0.3, 1.0, 3.0]))


def bests(asked: SearchRules, decoder: tuple[int, float]) -> list[tuple[tuple[int, ...], bool]]:
    """The best text after each step, and whether it ended by itself."""
    search, fake, found = BeamSearch(asked), TableDecoder(*decoder), []
    while not search.done:
        search.feed(fake.step(*search.pending))
        found.append((search.best(), search.ended))
    return found


@given(rules(), decoders)
def test_a_search_is_bounded_and_never_empty(asked: SearchRules, decoder: tuple[int, float]) -> None:
    """A search ends within its tokens, asks for no more rows than beams, and each row continues one that existed.

    After every step there is a text, unless the first token was an end, the start or padding.
    """
    search, fake, rows = BeamSearch(asked), TableDecoder(*decoder), 1
    assert search.best() == () and not search.ended
    while not search.done:
        tokens, origins = search.pending
        assert 1 <= len(tokens) == len(origins) <= asked.beams
        assert (origins >= 0).all() and (origins < rows).all()
        rows = len(tokens)
        search.feed(fake.step(tokens, origins))
        assert len(search.best()) <= search.steps
        if asked.forced_bos_token_id is not None and not (asked.max_new_tokens == 1 and asked.forced_eos_token_id):
            assert search.best()[:1] == (7,)
    assert 1 <= search.steps <= asked.max_new_tokens
    assert not {START, PAD, *asked.eos_token_ids} & set(search.best())


@given(rules(), decoders, st.integers(1, 14))
def test_an_interrupted_search_has_what_a_shorter_one_would_find(
    asked: SearchRules, decoder: tuple[int, float], steps: int
) -> None:
    """A search that is interrupted has the text that a search with that limit of steps would have found."""
    asked = replace(asked, forced_eos_token_id=None, early_stopping=asked.early_stopping is True)
    found = bests(asked, decoder)
    if asked.early_stopping and len(found) < asked.max_new_tokens:
        found.pop()  # there it was not interrupted: enough rows had ended, and it gave up those that go on
    assume(found)
    at = min(steps, len(found))
    assert bests(replace(asked, max_new_tokens=at), decoder)[-1] == found[at - 1]


@given(rules(), decoders)
def test_looking_at_the_best_changes_nothing(asked: SearchRules, decoder: tuple[int, float]) -> None:
    """A search is deterministic: reading the best text after each step does not change how it ends."""
    search, fake = BeamSearch(asked), TableDecoder(*decoder)
    while not search.done:
        search.feed(fake.step(*search.pending))
    found = bests(asked, decoder)
    assert found[-1] == (search.best(), search.ended)
    assert bests(asked, decoder) == found


@given(rules(), decoders)
def test_no_run_of_tokens_is_written_twice(asked: SearchRules, decoder: tuple[int, float]) -> None:
    """No n-gram of the rule's size occurs twice in any best text."""
    asked = replace(asked, forced_bos_token_id=None, suppressed_token_ids=(START, PAD))  # so that none is stripped
    asked = replace(asked, forced_eos_token_id=None)  # what is forced may repeat what was written
    size = asked.no_repeat_ngram_size
    for tokens, _ in bests(asked, decoder):
        runs = [tokens[at : at + size] for at in range(len(tokens) - size + 1)] if size else []
        assert len(runs) == len(set(runs))


@given(rules(), decoders)
def test_a_row_ends_by_itself_only_after_its_fewest_tokens(asked: SearchRules, decoder: tuple[int, float]) -> None:
    """A row chooses to end only after its least number of tokens; at the last place an end may be forced."""
    asked = replace(asked, suppressed_token_ids=(START, PAD))
    for tokens, ended in bests(asked, decoder):
        assert not ended or len(tokens) >= asked.min_new_tokens
        assert not ended or asked.eos_token_ids
