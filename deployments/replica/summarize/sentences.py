"""Where the sentences of a text are: the one rule by which texts are summarised, cut into chunks and ended.

Knows characters and offsets; refuses to know tokens, encoders and budgets. `sentencex` (MIT, Wikimedia) decides where
a sentence ends. It is handed at most `MAX_CHARACTERS` at a time, because it takes quadratic time over long runs of
quotes: so every text costs linear time, whoever wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import sentencex

LANGUAGE = "en"
MAX_CHARACTERS = 1_000
"""No span is longer. A sentence that would be is cut at its last space before that, or through its only word."""

MAX_QUOTES = 50
"""In one window of `MAX_CHARACTERS`; where there are more, quotes and brackets are noise and count as letters."""

SHORT_LINE = 50
"""A line of fewer characters that ends in no punctuation is a heading, where a capital or digit begins the next."""

TERMINATORS = ".!?…。！？"
CLOSERS = "'\"”’»)]}*_"
_PROBE = " Xx"  # no name or opening word known to `sentencex`, which would end even `Dr.`
_QUOTES = re.compile("[\"'`´‘’‚‛“”„‟«»‹›()\\[\\]{}（）「」『』【】〈〉《》]")
_UNREADABLE = re.compile("[\r\x00\ud800-\udfff]")
_MARKER = re.compile(r"[ \t]*(?:[-*+•>|#]|\d{1,3}[.)])+[ \t]")


@dataclass(frozen=True, slots=True)
class SentenceSpan:
    """Characters `start` (counted) to `end` (not counted) of a text; never empty, no whitespace at either end."""

    start: int
    end: int


def split_sentences(text: str) -> list[SentenceSpan]:
    """The sentences of a text in their order: disjoint, and together all of it but whitespace. Linear time, any str.

    Blank lines, list markers, Markdown headings and short lines without punctuation end a sentence too.
    """
    readable = _UNREADABLE.sub(" ", text)  # one character for one, so that offsets stay true
    return [
        SentenceSpan(start, end)
        for first, last in _blocks(readable)
        for start, end in _sentences(readable, first, last)
        if start < end
    ]


def whole_sentences(text: str) -> str:
    """The text up to the end of its last complete sentence, or '' where no sentence is complete.

    Complete is a sentence that ends in `.`, `!`, `?` or `…`, closing quotes and brackets aside, and after which another
    could begin: `He met Dr.` is not. For ending what a model wrote until its tokens ran out.
    """
    for span in reversed(split_sentences(text)):
        if _is_complete(text[span.start : span.end]):
            return text[: span.end]
    return ""


def _is_complete(sentence: str) -> bool:
    if not sentence.rstrip(CLOSERS).endswith(tuple(TERMINATORS)):
        return False
    return split_sentences(sentence + _PROBE)[-1].start == len(sentence) + 1


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Runs of lines that no sentence crosses the border of, blank lines left out."""
    begun, at, before = -1, 0, ""
    for line in text.split("\n"):
        here, at = at, at + len(line) + 1
        if begun >= 0 and (not line or line.isspace() or _MARKER.match(line) or _heads(before, line)):
            yield begun, here
            begun = -1
        if line and not line.isspace():
            begun = here if begun < 0 else begun
        before = line
    if begun >= 0:
        yield begun, len(text)


def _heads(before: str, line: str) -> bool:
    """Whether `before` is a heading over `line`: marked as one, or short, unpunctuated and before a fresh start."""
    if before.startswith("#"):
        return True
    stripped = before.strip() if len(before) < SHORT_LINE else ""
    if not stripped or stripped[-1] in ",;-–—(" or stripped.rstrip(CLOSERS).endswith(tuple(TERMINATORS)):
        return False
    first = line.lstrip()[:1]
    return first.isupper() or first.isdigit()


def _sentences(text: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The trimmed sentences of one block. What may go on past a window is looked at again in the next one."""
    marker = _MARKER.match(text, start, stop)
    opening = marker.end() if marker else start  # `1.` before a list item is no sentence
    while start < stop:
        end = min(start + MAX_CHARACTERS, stop)
        ends = [length for length in _sentence_ends(text[start:end]) if start + length > opening] or [end - start]
        if end < stop:  # the last sentence of the window may go on: it begins the next window, or is cut if it is alone
            ends = ends[:-1] or [_cut(text, start, end) - start]
        origin = start
        for length in ends:
            yield _trimmed(text, start, origin + length)
            start = origin + length


def _sentence_ends(window: str) -> list[int]:
    """The offset after each sentence of a window; the last is the window's length."""
    if window.isascii() and not any(mark in window for mark in ".!?"):
        return [len(window)]
    if len(_QUOTES.findall(window)) > MAX_QUOTES:
        window = _QUOTES.sub("x", window)
    ends = [int(boundary["end_index"]) for boundary in sentencex.get_sentence_boundaries(LANGUAGE, window)]
    return [*(end for end in ends if end < len(window)), len(window)]


def _cut(text: str, start: int, end: int) -> int:
    """After the last whitespace of text[start:end] that has something before it, or `end` where there is none."""
    word = len(text[start:end].rsplit(None, 1)[-1]) if not text[end - 1].isspace() else 0
    return end - word if text[start : end - word].strip() else end


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
