"""Laws of cutting texts to a window: which side is kept, and what is counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_embedders import WINDOW, WORDS, write_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from deployments.replica.tokens import READ_CHARACTERS, Encoded, Side, WindowedTokens
from gateway.model.messages import Failure

words = st.lists(st.sampled_from(WORDS[4:]), max_size=40)
sides = st.sampled_from(["left", "right"])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of whole words."""
    made = tmp_path_factory.mktemp("tokens") / "tokenizer.json"
    write_tokenizer(made)
    return made


@given(words, sides)
def test_a_text_keeps_the_side_that_is_named_and_its_specials(file: Path, given_words: list[str], side: Side) -> None:
    """Within the window every token is kept; beyond it those of one side, and every token is counted."""
    found = WindowedTokens.open(file, WINDOW, side).encode(" ".join(given_words))
    assert isinstance(found, Encoded)
    ids = [WORDS.index(word) for word in given_words]
    room = WINDOW - 2
    kept = ids if len(ids) <= room else ids[:room] if side == "right" else ids[-room:]
    assert found.token_ids == [1, *kept, 2] and found.tokens_total == len(ids) + 2
    assert found.truncated == (len(ids) > room)


@given(words, sides)
def test_a_text_that_may_not_be_cut_is_refused_exactly_over_the_window(
    file: Path, given_words: list[str], side: Side
) -> None:
    """`cut` false refuses what is longer than the window, and nothing else."""
    found = WindowedTokens.open(file, WINDOW, side).encode(" ".join(given_words), cut=False)
    assert isinstance(found, Failure) == (len(given_words) + 2 > WINDOW)


@pytest.mark.parametrize("side", ["left", "right"])
def test_of_a_very_long_text_only_the_kept_side_is_read(file: Path, side: Side) -> None:
    """A text far over the window keeps its named side; its length is then an estimate."""
    filler, end = "dog " * READ_CHARACTERS * WINDOW, "cat " * (WINDOW - 2)
    text = end + filler if side == "right" else filler + end
    found = WindowedTokens.open(file, WINDOW, side).encode(text)
    assert isinstance(found, Encoded) and found.token_ids == [1, *[WORDS.index("cat")] * (WINDOW - 2), 2]
    assert found.tokens_total == pytest.approx(len(text) / 4, rel=0.1)
