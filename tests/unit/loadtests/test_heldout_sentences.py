"""The held-out sentences that every measurement sends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporters.sources.texts import HELDOUT
from loadtests.errors import NoSentences
from loadtests.sentences import classify_body, heldout_sentences, shuffled_texts


def test_the_sentences_are_all_sent_and_mixed_alike_every_time() -> None:
    """Sentences always come in one fixed order that mixes all data sets."""
    texts = shuffled_texts()
    sentences = heldout_sentences()
    assert texts == shuffled_texts() and sorted(texts) == sorted(one.text for one in sentences)
    sources = {one.text: one.source for one in sentences}
    assert {sources[text] for text in texts[:100]} == set(sources.values())
    assert json.loads(classify_body(texts[0])) == {"inputs": texts[0]}


def test_missing_sentences_are_named(tmp_path: Path) -> None:
    """Missing sentences are an error that names the expected file."""
    with pytest.raises(NoSentences, match=r"none\.jsonl"):
        heldout_sentences(tmp_path / "none.jsonl")
    assert HELDOUT.exists()
