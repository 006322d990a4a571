"""The requests every measurement sends: the held-out sentences, one a request, in a fixed shuffled order."""

from __future__ import annotations

import json
import random
from pathlib import Path

from exporters.texts import HELDOUT, Sentence, read_heldout
from loadtests.errors import NoSentences

ORDER_SEED = 11


def heldout_sentences(path: Path = HELDOUT) -> list[Sentence]:
    """All of them, as they stand in the file. Raises NoSentences."""
    try:
        sentences = read_heldout(path)
    except FileNotFoundError:
        raise NoSentences(f"{path}: the held-out sentences are missing") from None
    if not sentences:
        raise NoSentences(f"{path}: it holds no sentence")
    return sentences


def shuffled_texts(path: Path = HELDOUT) -> list[str]:
    """Their texts so mixed that any stretch of them looks like the whole: the file has one data set after the other."""
    texts = [sentence.text for sentence in heldout_sentences(path)]
    random.Random(ORDER_SEED).shuffle(texts)
    return texts


def classify_body(text: str) -> bytes:
    """The body of `POST /classify` for one sentence, as an ordinary client writes it."""
    return json.dumps({"inputs": text}, ensure_ascii=False).encode()
