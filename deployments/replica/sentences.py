"""Finds the sentences of a text: the one rule for summarising texts, cutting them into pieces and ending them.

Knows characters and offsets; knows no tokens, encoders or budgets. `sentencex` (MIT, Wikimedia) decides where a
sentence ends. It takes quadratic time over long rows of quotes, so it gets at most `MAX_CHARACTERS` at a time: every
text costs linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import sentencex

LANGUAGE = "en"
MAX_CHARACTERS = 1_000
"""Most characters of a span. A longer sentence is cut at its last space before that, or through its only word."""

MAX_QUOTES = 50
"""Most quotes and brackets in one window of `MAX_CHARACTERS`. If there are more, they count as letters."""

SHORT_LINE = 50
"""A shorter line without punctuation at its end is a heading, if the next line begins with a capital or digit."""

TERMINATORS = ".!?…。！？"
CLOSERS = "'\"”’»)]}*_"
CONTEXT = 200
"""Characters before an end that decide whether it is a sentence's: abbreviations are shorter. Set by hand."""

_ENDING = re.compile("(?:[。！？]|[.!?…](?=['\"”’»)\\]}*_]*(?:\\s|$)))['\"”’»)\\]}*_]*")
"""Where a sentence may end: at a terminator with its closers, before white space if the script has some."""

_AFTER = re.compile(r"\s+\S+|\S")
_FIRST_WORD = re.compile(r"\A\S+")
_PROBE = " Xx"  # not a word that `sentencex` knows as a sentence's start, which would make even `Dr.` an end
_QUOTES = re.compile("[\"'`´‘’‚‛“”„‟«»‹›()\\[\\]{}（）「」『』【】〈〉《》]")
_UNREADABLE = re.compile("[\r\x00\ud800-\udfff]")
_MARKER = re.compile(r"[ \t]*(?:[-*+•>|#]|\d{1,3}[.)])+[ \t]")


@dataclass(frozen=True, slots=True)
class SentenceSpan:
    """Characters `start` to `end` (exclusive) of a text; never empty, no whitespace at either end."""

    start: int
    end: int


def split_sentences(text: str) -> list[SentenceSpan]:
    """Splits any string into sentences, in order: disjoint, and together all of it but whitespace. Linear time.

    Blank lines, list markers, Markdown headings and short lines without punctuation end a sentence too.
    """
    return [*each_sentence(text)]


def each_sentence(text: str) -> Iterator[SentenceSpan]:
    """Yields what `split_sentences` returns, each when it is asked for."""
    readable = _UNREADABLE.sub(" ", text)  # replaces one character by one, so that offsets stay true
    for first, last in _blocks(readable):
        for start, end in _sentences(readable, first, last):
            if start < end:
                yield SentenceSpan(start, end)


def whole_sentences(text: str, *, settled: bool = False) -> str:
    """Cuts a text after its last complete sentence; '' if no sentence is complete.

    A complete sentence ends in `.`, `!`, `?` or `…`, perhaps with closing quotes and brackets, and another could begin
    after it: `He met Dr.` is not complete. Use it on a text that a model wrote until its tokens ran out.

    Only the `CONTEXT` before an end and the word after it decide. So what is found of a text with a whole word after it
    is found of every longer text; with `settled`, no other end counts.
    """
    for match in reversed([*_ENDING.finditer(text)]):
        end, after = match.end(), _AFTER.match(text, match.end())
        if settled and (after is None or after.end() == len(text) > end + 1):
            continue
        if _ends_there(text, end, after[0] if after else ""):
            return text[:end]
    return ""


def _ends_there(text: str, end: int, after: str) -> bool:
    """True if a complete sentence ends at this place, before what comes `after` it."""
    context = text[max(0, end - CONTEXT) : end]
    if end > CONTEXT:
        context = _FIRST_WORD.sub("", context)  # which may be half a word
    spans = [span for span in split_sentences(context + after) if span.end == len(context)]
    return any(_is_complete(context[span.start : span.end]) for span in spans)


def _is_complete(sentence: str) -> bool:
    if not sentence.rstrip(CLOSERS).endswith(tuple(TERMINATORS)):
        return False
    return split_sentences(sentence + _PROBE)[-1].start == len(sentence) + 1


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Splits a text into blocks of lines without blank lines; no sentence crosses a block's border."""
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
    """True if `before` is a heading over `line`: marked as one, or short, unpunctuated and before a new start."""
    if before.startswith("#"):
        return True
    stripped = before.strip() if len(before) < SHORT_LINE else ""
    if not stripped or stripped[-1] in ",;-–—(" or stripped.rstrip(CLOSERS).endswith(tuple(TERMINATORS)):
        return False
    first = line.lstrip()[:1]
    return first.isupper() or first.isdigit()


def _sentences(text: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Gives the trimmed sentences of one block. A sentence that may go on past a window begins the next window."""
    marker = _MARKER.match(text, start, stop)
    opening = marker.end() if marker else start  # `1.` before a list item is not a sentence
    while start < stop:
        end = min(start + MAX_CHARACTERS, stop)
        ends = [length for length in _sentence_ends(text[start:end]) if start + length > opening] or [end - start]
        if end < stop:  # the last sentence may go on: it begins the next window, or is cut if it is the only one
            ends = ends[:-1] or [_cut(text, start, end) - start]
        origin = start
        for length in ends:
            yield _trimmed(text, start, origin + length)
            start = origin + length


def _sentence_ends(window: str) -> list[int]:
    """Gives the offset after each sentence of a window; the last is the window's length."""
    if window.isascii() and not any(mark in window for mark in ".!?"):
        return [len(window)]
    if len(_QUOTES.findall(window)) > MAX_QUOTES:
        window = _QUOTES.sub("x", window)
    ends = [int(boundary["end_index"]) for boundary in sentencex.get_sentence_boundaries(LANGUAGE, window)]
    return [*(end for end in ends if end < len(window)), len(window)]


def _cut(text: str, start: int, end: int) -> int:
    """The place after the last whitespace inside text[start:end], or `end` if there is none."""
    word = len(text[start:end].rsplit(None, 1)[-1]) if not text[end - 1].isspace() else 0
    return end - word if text[start : end - word].strip() else end


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
