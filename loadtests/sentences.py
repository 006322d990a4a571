"""The requests of every measurement: held-out sentences, one a request, in a fixed shuffled order."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from exporters.sources.texts import HELDOUT, Sentence, read_heldout
from loadtests.errors import NoSentences

ORDER_SEED = 11

Inputs: TypeAlias = "str | list[str]"
"""What one request asks: a text, or several."""


def heldout_sentences(path: Path = HELDOUT) -> list[Sentence]:
    """All held-out sentences, in file order. Raises NoSentences."""
    try:
        sentences = read_heldout(path)
    except FileNotFoundError:
        raise NoSentences(f"{path}: the held-out sentences are missing") from None
    if not sentences:
        raise NoSentences(f"{path}: it holds no sentence")
    return sentences


def shuffled_texts(path: Path = HELDOUT) -> list[str]:
    """The texts, shuffled with a fixed seed, because the file holds one data set after the other."""
    texts = [sentence.text for sentence in heldout_sentences(path)]
    random.Random(ORDER_SEED).shuffle(texts)
    return texts


def grouped(texts: Sequence[str], size: int) -> list[Inputs]:
    """The texts as inputs of requests: each by itself, or lists of `size` of them; what is left over is left out."""
    if size == 1:
        return list(texts)
    return [list(texts[at : at + size]) for at in range(0, len(texts) - size + 1, size)]


def texts_of(inputs: Inputs) -> list[str]:
    """The texts of one request."""
    return [inputs] if isinstance(inputs, str) else inputs


def classify_body(inputs: Inputs) -> bytes:
    """The JSON body of `POST /classify` for one sentence, or a list of them."""
    return json.dumps({"inputs": inputs}, ensure_ascii=False).encode()
