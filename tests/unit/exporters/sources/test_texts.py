"""Laws of verification texts: a checkpoint's own come first, and labels count only if the checkpoint knows them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporters.errors import SourceRefused
from exporters.sources.source import SourceFolder
from exporters.sources.texts import Text, TextSet, labelled_texts, summarised_texts

SENTIMENTS = TextSet("set", (Text("a bad film", "negative"), Text("a fine film", "positive")))


def test_labels_are_matched_whatever_their_case() -> None:
    """Labels match regardless of case, and keep the checkpoint's spelling."""
    known = SENTIMENTS.known_to(("NEGATIVE", "POSITIVE"))
    assert known.texts[0].answer == "NEGATIVE"


def test_labels_of_another_kind_are_left_out() -> None:
    """Texts with labels that a checkpoint does not know still measure its agreement, but not its accuracy."""
    assert all(text.answer is None for text in SENTIMENTS.known_to(("sports", "business")).texts)


def test_a_checkpoint_s_own_texts_win(tmp_path: Path) -> None:
    """A checkpoint's own texts are preferred, with labels or without; a malformed line is named by its number."""
    own, source = tmp_path / "verification.jsonl", SourceFolder(tmp_path, "here", "", "0", tmp_path)
    own.write_text(json.dumps({"text": "a"}) + "\n" + json.dumps({"text": "b", "label": "positive"}) + "\n")
    assert labelled_texts(source).texts == (Text("a"), Text("b", "positive"))
    own.write_text('{"text": "a"}\n["b"]\n')
    with pytest.raises(SourceRefused, match="line 2"):
        labelled_texts(source)
    own.write_text("")
    with pytest.raises(SourceRefused, match="no texts"):
        labelled_texts(source)


def test_texts_with_summaries_are_found_by_their_checkpoint(tmp_path: Path) -> None:
    """Texts with summaries are the checkpoint's own, else its starter's, else the shared ones."""
    source = SourceFolder(tmp_path, "starter:bart-software", "", "0", tmp_path)
    assert summarised_texts(source).name == "starter software-heldout"
    heldout = tmp_path / "heldout.jsonl"
    heldout.write_text(json.dumps({"text": "a\u2028b", "summary": "c"}, ensure_ascii=False) + "\n")
    other = SourceFolder(tmp_path, "elsewhere", "", "0", tmp_path)
    assert summarised_texts(other, heldout) == TextSet("starter heldout", (Text("a\u2028b", "c"),))
    (tmp_path / "verification.jsonl").write_text('{"text": "own"}\n{"text": "own", "summary": "s"}\n')
    own = summarised_texts(source, heldout)
    assert (own.name, own.answers) == ("verification.jsonl", None)
    assert own.spread(1).texts == own.texts[:1]
    (tmp_path / "verification.jsonl").write_text('{"text": "own"}\n{"summary": "s"}\n')
    with pytest.raises(SourceRefused, match="line 2"):
        summarised_texts(source)
    (tmp_path / "verification.jsonl").unlink()
    with pytest.raises(SourceRefused, match="no texts to verify it on"):
        summarised_texts(other, tmp_path / "nowhere.jsonl")
