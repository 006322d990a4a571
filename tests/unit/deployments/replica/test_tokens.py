"""Laws of token ids and texts: cutting and joining outside the tokenizer gives what the tokenizer would."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_variants import tokenizer

from deployments.replica.tokens import TextTokens, well_formed

LONG = "a very good film good film bad films ."


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TextTokens:
    """A tokenizer that was saved with truncation at 4 and padding to 9."""
    file = tmp_path_factory.mktemp("tokens") / "tokenizer.json"
    tokenizer().save(str(file))
    return TextTokens.open(file)


def test_nothing_is_cut_and_nothing_filled_up(tokens: TextTokens) -> None:
    """Encoding neither cuts nor pads, whatever the tokenizer's file asks for."""
    ids = tokens.encode(LONG)
    assert len(ids) == 12 and ids[0] == 2 and ids[-1] == 3
    assert tokens.specials == 2


def test_many_at_once_are_each_as_alone(tokens: TextTokens) -> None:
    """Texts encoded together get the ids that each gets alone."""
    texts = ["good", LONG, "", "bad \ud800 film"]
    assert tokens.encode_batch(texts) == [tokens.encode(text) for text in texts]
    assert tokens.encode_batch([]) == []


@given(st.integers(2, 20))
def test_a_cut_is_the_head_and_the_closing_specials(window: int) -> None:
    """A text is cut as the tokenizer's own truncation cuts it: head first, closing specials kept."""
    made = tokenizer()
    made.no_padding()
    made.no_truncation()
    whole = TextTokens(made)
    ids = whole.encode(LONG)
    made.enable_truncation(window)
    assert whole.cut(ids, window) == made.encode(LONG).ids


def test_specials_are_not_text(tokens: TextTokens) -> None:
    """Decoding leaves special tokens out and gives the text, as far as the tokenizer keeps it."""
    marked = tokenizer()
    marked.add_special_tokens(["[CLS]", "[SEP]"])
    marked.no_truncation()
    marked.no_padding()
    assert TextTokens(marked).decode(tokens.encode("Good film")) == "good film"
    assert tokens.decode([]) == ""


def test_what_utf8_cannot_hold_is_read_as_a_replacement(tokens: TextTokens) -> None:
    """A lone surrogate is read as one replacement character, and a pair as the character that it encodes."""
    assert tokens.encode("good \ud800") == tokens.encode("good \ufffd")
    assert well_formed("\ud83d\ude00 \udfff") == "\U0001f600 \ufffd"
