"""Restoring a summary's casing and spacing from its source: by example, and in linear time."""

from __future__ import annotations

import pytest
from counted_steps import steps_of

from deployments.replica.summarize.casing import restored

SOURCE = (
    "The X.Org server is a command-line tool for C++ and .NET. NetApp's modules run in Node.js, over TCP/IP. "
    'Gabbi is a tool (really). This is it. Peer-to-peer "quoted" things, C# too. Library of the GNU project: a GNU one.'
)


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ("x . org server", "X.Org server"),
        ("bindings for c + +", "bindings for C++"),
        ("things in c #", "things in C#"),
        ("command - line tool", "command-line tool"),
        ("netapp ' s modules", "NetApp's modules"),
        ("node . js over tcp / ip", "Node.js over TCP/IP"),
        ("peer - to - peer", "peer-to-peer"),
        ("a tool for . net", "a tool for .NET"),
    ],
)
def test_the_source_says_how_a_word_is_written(summary: str, expected: str) -> None:
    """A word gets the casing and joints that it has in the source."""
    assert restored(summary, SOURCE) == expected


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ("server - documentation", "server - documentation"),
        ("library ( development files )", "library (development files)"),
        ("fast , small .", "fast, small."),
        ("version 1 . 5 ; user ' s guide", "version 1.5; user's guide"),
        ("read / write", "read/write"),
        ("command - tool", "command - tool"),
    ],
)
def test_where_the_source_says_nothing_english_does(summary: str, expected: str) -> None:
    """Where the source says nothing, marks are joined by English rules, but a dash between words is not."""
    assert restored(summary, SOURCE) == expected


def test_a_sentence_s_first_letter_is_no_evidence() -> None:
    """A capital that only begins a sentence is not copied, unless the source shows that the word is a name."""
    assert restored("library of the gnu project", SOURCE) == "library of the GNU project"
    assert restored("this gabbi is it", SOURCE) == "this Gabbi is it"


def test_the_commonest_form_inside_sentences_counts() -> None:
    """Of several spellings inside sentences the most frequent is used."""
    assert restored("debian", "DEBIAN or debian? See DEBIAN, the Debian, a Debian, an Debian.") == "Debian"


@pytest.mark.parametrize(("summary", "source"), [("", ""), ("", "Some text"), ("some words", ""), (" \n ", "x")])
def test_nothing_is_a_text_too(summary: str, source: str) -> None:
    """Empty texts are answered like others."""
    assert restored(summary, source) == summary.strip()


def test_a_long_text_takes_time_in_proportion() -> None:
    """The cost of restoring grows in proportion to the text: eight times the text takes about eight times the steps."""

    def steps(times: int) -> int:
        source, summary = SOURCE * times, "x . org server for c + + - peer - to - peer " * times
        return steps_of(lambda: restored(summary, source))

    assert 0 < steps(400) < 9 * steps(50)
