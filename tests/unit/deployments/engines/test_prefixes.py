"""Laws of prompts that are kept: the longest common beginning is found, and no more is held than the limit."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.engines.base import TokenIds
from deployments.engines.prefixes import BLOCK, MOST_KEPT, Prefixes, Read

A_TOKEN = 4 * 2 * 3
"""Bytes of a token's keys and values."""

MANY = 10**9

prompts = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 60), st.lists(st.integers(7, 9), max_size=12)), max_size=12
)


def read_of(ids: TokenIds) -> Read:
    """Keys and values that tell each token's place and all tokens up to it."""
    marks = np.cumsum(ids).astype(np.float32)
    return {"key": np.broadcast_to(marks[:, np.newaxis], (1, 2, len(ids), 3)).copy()}


def ids_of(prompt: tuple[int, int, list[int]]) -> TokenIds:
    """Token ids that begin as others of the same kind do."""
    kind, common, own = prompt
    return np.asarray([*[kind] * common, *own], dtype=np.int64)


@settings(max_examples=80, deadline=None)
@given(prompts, st.integers(0, 400))
def test_what_is_restored_is_what_was_read_and_within_the_limit(
    drawn: list[tuple[int, int, list[int]]], tokens: int
) -> None:
    """What is restored is the keys and values of the very tokens; what is held never exceeds the limit."""
    prefixes, read = Prefixes(), list[TokenIds]()
    prefixes.resize(tokens * A_TOKEN)
    for ids in map(ids_of, drawn):
        restored, found = prefixes.restore(ids)
        assert restored % BLOCK == 0
        if restored:
            np.testing.assert_array_equal(found["key"], read_of(ids)["key"][:, :, :restored])
        prefixes.keep(ids, read_of(ids))
        read.append(ids)
        assert prefixes.held_bytes <= tokens * A_TOKEN
        prefixes.resize((tokens // 2) * A_TOKEN)
        assert prefixes.held_bytes <= (tokens // 2) * A_TOKEN
        prefixes.resize(tokens * A_TOKEN)
    prefixes.resize(0)
    assert prefixes.held_bytes == 0


def test_the_longest_beginning_is_found_and_counted() -> None:
    """Of several prompts the one that has most in common counts, in whole blocks, and what was spared is counted."""
    prefixes = Prefixes()
    prefixes.resize(MANY)
    for common in (20, 40, 30):
        ids = np.asarray([*[1] * common, common], dtype=np.int64)
        prefixes.keep(ids, read_of(ids))
    assert prefixes.restore(np.asarray([*[1] * 36, 5], dtype=np.int64))[0] == 2 * BLOCK
    assert prefixes.restore(np.asarray([*[1] * (BLOCK - 1), 5], dtype=np.int64)) == (0, {})
    assert prefixes.restore(np.asarray([2] * 40, dtype=np.int64)) == (0, {})
    assert (prefixes.restored_prompts, prefixes.restored_tokens) == (1, 2 * BLOCK)


def test_a_beginning_makes_room_for_what_goes_on_from_it() -> None:
    """A conversation that goes on is kept once, and one that nobody used goes before one that was of use."""
    prefixes, first = Prefixes(), np.arange(20, dtype=np.int64)
    prefixes.resize(2 * 40 * A_TOKEN)
    longer, other = np.arange(40, dtype=np.int64), np.arange(100, 140, dtype=np.int64)
    for ids in (first, longer):
        prefixes.keep(ids, read_of(ids))
    assert prefixes.held_bytes == 40 * A_TOKEN
    prefixes.keep(other, read_of(other))
    prefixes.restore(longer)
    third = np.arange(200, 240, dtype=np.int64)
    prefixes.keep(third, read_of(third))
    assert prefixes.restore(longer)[0] == 2 * BLOCK and prefixes.restore(other)[0] == 0


def test_without_a_limit_nothing_is_kept() -> None:
    """An engine that nobody gave memory for it reads every prompt anew."""
    prefixes, ids = Prefixes(), np.arange(40, dtype=np.int64)
    prefixes.keep(ids, read_of(ids))
    assert prefixes.restore(ids) == (0, {}) and prefixes.held_bytes == 0


def test_no_more_prompts_are_kept_than_are_compared_quickly() -> None:
    """However small prompts are, a limited number is kept: the least recently used go."""
    prefixes = Prefixes()
    prefixes.resize(MANY)
    for number in range(2 * MOST_KEPT):
        ids = np.full(BLOCK, number, dtype=np.int64)
        prefixes.keep(ids, read_of(ids))
    assert prefixes.restore(np.full(BLOCK, 0, dtype=np.int64))[0] == 0
    assert prefixes.restore(np.full(BLOCK, MOST_KEPT, dtype=np.int64))[0] == BLOCK
    assert prefixes.held_bytes == MOST_KEPT * BLOCK * A_TOKEN
