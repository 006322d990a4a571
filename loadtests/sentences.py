"""The requests of every measurement: held-out sentences, one a request, in a fixed shuffled order."""

from __future__ import annotations

import json
import random
from pathlib import Path

from exporters.sources.texts import HELDOUT, Sentence, read_heldout
from loadtests.errors import NoSentences

ORDER_SEED = 11


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


def classify_body(text: str) -> bytes:
    """The JSON body of `POST /classify` for one sentence."""
    return json.dumps({"inputs": text}, ensure_ascii=False).encode()
