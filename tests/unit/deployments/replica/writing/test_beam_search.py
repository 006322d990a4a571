"""Laws of beam search against transformers itself: equal scores give equal tokens, whatever the rules."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from small_seq2seq import (
    SEQ2SEQ_FAMILIES,
    TorchDecoder,
    articles,
    finish,
    generate,
    rules_of,
    seq2seq_tokenizer,
    small_seq2seq,
)
from transformers import PreTrainedModel

from deployments.engines.base import TokenIds
from deployments.replica.writing.beam_search import BeamSearch, SearchRules, best_places, repeating

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "short is better": {"length_penalty": 0.5, "min_new_tokens": 3},
    "long is better": {"length_penalty": 2.0, "early_stopping": True, "forced_eos_token_id": -1},
    "backwards": {"length_penalty": -1.0, "early_stopping": "never"},
    "never early": {"length_penalty": 2.0, "early_stopping": "never", "no_repeat_ngram_size": 2},
    "early": {"early_stopping": True, "no_repeat_ngram_size": 2, "min_new_tokens": 6},
    "no token twice": {"no_repeat_ngram_size": 1, "forced_eos_token_id": -1},
    "trigrams": {"length_penalty": 0.5, "no_repeat_ngram_size": 3, "forced_bos_token_id": 3},
    "all forced": {"forced_bos_token_id": 5, "forced_eos_token_id": -1, "early_stopping": True, "min_new_tokens": 4},
    "as long as it gets": {"min_new_tokens": 10, "no_repeat_ngram_size": 3, "length_penalty": 2.0},
    "one token": {"max_new_tokens": 1, "forced_bos_token_id": 5, "forced_eos_token_id": -1},
    "one free token": {"max_new_tokens": 1},
}


@pytest.fixture(scope="module")
def models() -> dict[str, PreTrainedModel]:
    """One tiny model of each family."""
    return {family: small_seq2seq(family) for family in SEQ2SEQ_FAMILIES}


def text(family: str, at: int) -> TokenIds:
    """Token ids (tokens,) of text number `at`."""
    return np.array(seq2seq_tokenizer(family).encode(articles(20)[at]).ids, dtype=np.int64)


def rules(model: PreTrainedModel, beams: int, settings: dict[str, Any]) -> SearchRules:
    """The rules of one setting; a forced end of -1 stands for the model's own."""
    chosen = {"max_new_tokens": 10, "beams": beams} | settings
    if "forced_eos_token_id" in chosen:
        chosen["forced_eos_token_id"] = model.config.eos_token_id
    return rules_of(model, **chosen)


def stripped(tokens: tuple[int, ...], rules: SearchRules) -> tuple[int, ...]:
    """Tokens without start, ends and padding."""
    special = {rules.decoder_start_token_id, rules.pad_token_id, *rules.eos_token_ids}
    return tuple(token for token in tokens if token not in special)


@pytest.mark.parametrize(("family", "beams"), [*itertools.product(SEQ2SEQ_FAMILIES, [2, 4]), ("pegasus", 1)])
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_search_writes_what_generate_writes(
    models: dict[str, PreTrainedModel], family: str, setting: str, beams: int
) -> None:
    """Beam search gives the tokens of `generate`, and agrees on whether the last is an end that nothing forced."""
    model = models[family]
    asked = rules(model, beams, SETTINGS[setting])
    search, ids = BeamSearch(asked), text(family, list(SETTINGS).index(setting) + beams)
    expected = generate(model, ids, asked)
    assert finish(search, TorchDecoder(model, ids)) == stripped(expected, asked)
    cut = len(expected) == asked.max_new_tokens
    by_itself = asked.eos_token_ids[0] in expected and not (cut and asked.forced_eos_token_id is not None)
    assert search.ended is by_itself


@pytest.mark.parametrize("beams", [1, 3])
def test_several_ends_and_unwanted_tokens_are_kept(models: dict[str, PreTrainedModel], beams: int) -> None:
    """Any of several end tokens ends a row, and a suppressed token is never written."""
    model, ids = models["pegasus"], text("pegasus", 2)
    plain = rules_of(model, max_new_tokens=12, beams=beams)
    often = finish(BeamSearch(plain), TorchDecoder(model, ids))
    for ends, unwanted in (((1, often[5]), ()), ((1, often[5], often[3]), (often[0],))):
        asked = SearchRules(0, ends, 0, 12, beams=beams, suppressed_token_ids=unwanted, no_repeat_ngram_size=2)
        found = finish(BeamSearch(asked), TorchDecoder(model, ids))
        assert found == stripped(generate(model, ids, asked), asked)
        assert not set(unwanted) & set(found)


def test_a_search_that_is_done_takes_no_more() -> None:
    """A search that is done refuses another step and has none to offer."""
    search = BeamSearch(SearchRules(0, (1,), 0, 1))
    search.feed(np.zeros((1, 8), dtype=np.float32))
    assert search.done and search.steps == 1
    with pytest.raises(RuntimeError, match="done"):
        search.feed(np.zeros((1, 8), dtype=np.float32))
    with pytest.raises(RuntimeError, match="done"):
        _ = search.pending


def test_logits_of_other_rows_are_refused() -> None:
    """Logits for more rows than were asked for are refused."""
    with pytest.raises(ValueError, match="2 rows for 1"):
        BeamSearch(SearchRules(0, (1,), 0, 4)).feed(np.zeros((2, 8), dtype=np.float32))


@pytest.mark.parametrize(("longest", "beams"), [(4, 0), (0, 1)])
def test_rules_that_no_search_could_follow_are_refused(longest: int, beams: int) -> None:
    """Rules with zero beams or zero tokens are refused."""
    with pytest.raises(ValueError, match="a search of"):
        SearchRules(0, (), 0, longest, beams=beams)


def test_a_search_whose_every_token_is_banned_ends_with_what_it_has() -> None:
    """A search in which every token is banned ends with what it has."""
    search = BeamSearch(SearchRules(0, (), 0, 9, beams=2, no_repeat_ngram_size=1))
    while not search.done:
        rows = len(search.pending[0])
        search.feed(np.zeros((rows, 3), dtype=np.float32))
    assert sorted(search.best()) == [1, 2] and not search.ended


def test_the_best_places_are_those_of_a_sort() -> None:
    """The best places are those that sorting gives, for any vocabulary size, with ties and with banned values."""
    chance = np.random.default_rng(3)
    for size in (3, 300, 5000, 50_264):
        values = chance.normal(size=size).round(2).astype(np.float32)
        values[chance.integers(size, size=size // 3)] = -np.inf
        for wanted in (1, 8, 30):
            found = np.sort(values[best_places(values, wanted)])
            kept = values[values > -np.inf]
            np.testing.assert_array_equal(found, np.sort(kept)[-wanted:])


def test_what_would_repeat_is_what_followed_before() -> None:
    """A token is banned if it would repeat an n-gram of its row."""
    row = np.array([1, 2, 3, 1, 2, 4, 1, 2])
    assert repeating(row, 3) == [3, 4]
    assert repeating(row[:1], 3) == []
    assert set(repeating(row, 1)) == {1, 2, 3, 4}
