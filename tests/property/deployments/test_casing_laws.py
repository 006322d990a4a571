"""Laws of restoring a summary's casing and spacing, for any source and any summary."""

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
    """The text without white space and casing."""
    return folded("".join(text.split()))


@given(summary=texts, source=texts)
def test_only_case_and_space_change(summary: str, source: str) -> None:
    """Restoring changes only case and white space: the summary keeps its characters in order."""
    assert bare(restored(summary, source)) == bare(summary)


@given(summary=texts, source=texts)
def test_restoring_again_changes_nothing(summary: str, source: str) -> None:
    """Restoring a text that is restored already changes nothing."""
    once = restored(summary, source)
    assert restored(once, source) == once


@given(summary=texts, source=texts)
def test_no_space_is_doubled_or_left_over(summary: str, source: str) -> None:
    """White space in the result is single spaces between words."""
    answer = restored(summary, source)
    assert answer == " ".join(answer.split())


@given(words=st.lists(st.sampled_from([w for w in WORDS if w.isalnum()]), min_size=1, max_size=20))
def test_a_text_without_marks_keeps_its_words_apart(words: list[str]) -> None:
    """Words of a text without punctuation are never run together, whatever the source has."""
    assert len(restored(" ".join(words), "".join(words)).split()) == len(words)
