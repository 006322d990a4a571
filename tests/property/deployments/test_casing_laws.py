"""The laws of giving a summary its casing and spacing back: whatever the two texts are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deployments.replica.summarize.casing import folded, restored

WORDS = (
    "c",
    "C",
    "x",
    "X",
    "org",
    "Org",
    "tool",
    "Tool",
    "gnu",
    "GNU",
    "s",
    "js",
    "1",
    "5",
    "ΑΣ",
    "ας",
    "İx",
    "ß",
    "a\u0301",
)
MARKS = (*"+-./:'’@&,;!?()[]{}%…_\"#", "...")
pieces = st.lists(st.sampled_from((*WORDS, *MARKS, " ", " ", " ", "\n", "\u2003")), max_size=40).map("".join)
texts = st.one_of(pieces, st.text(max_size=60))


def bare(text: str) -> str:
    """A text without its white space and its casing."""
    return folded("".join(text.split()))


@given(summary=texts, source=texts)
def test_only_case_and_space_change(summary: str, source: str) -> None:
    """Any two texts get an answer, and it has the summary's characters in their order."""
    assert bare(restored(summary, source)) == bare(summary)


@given(summary=texts, source=texts)
def test_restoring_again_changes_nothing(summary: str, source: str) -> None:
    """What has the source's casing and spacing keeps it."""
    once = restored(summary, source)
    assert restored(once, source) == once


@given(summary=texts, source=texts)
def test_no_space_is_doubled_or_left_over(summary: str, source: str) -> None:
    """What white space there is, is single spaces between words."""
    answer = restored(summary, source)
    assert answer == " ".join(answer.split())


@given(words=st.lists(st.sampled_from([w for w in WORDS if w.isalnum()]), min_size=1, max_size=20))
def test_a_text_without_marks_keeps_its_words_apart(words: list[str]) -> None:
    """Words are never run together, whatever the source says of them."""
    assert len(restored(" ".join(words), "".join(words)).split()) == len(words)
