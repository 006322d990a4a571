"""How answers among batch-mates are compared with those alone, on an engine of which that is known."""

from __future__ import annotations

import json
import random
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from small_variants import write_variant

from deployments.engines.base import Logits, TokenIds
from deployments.replica.classify import OpenClassifier, open_classifier
from loadtests.bench.batchmates import NEIGHBOURS, Settings, compared, drawn, measure
from loadtests.bench.measuring.report import present

TEXTS = ["good film", "bad film", "very good", "very bad", "a film", "film.", "good", "bad"] * 3


class ByBatch:
    """An engine whose logits flip as soon as a row has company."""

    def run(self, token_ids: TokenIds, attention_mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        """Answer the first label alone and the second in company."""
        row = [0.1, 0.0] if len(token_ids) == 1 else [0.0, 0.1]
        return np.array([row] * len(token_ids), dtype=np.float32)


@pytest.fixture
def opened(tmp_path: Path) -> OpenClassifier:
    """A variant whose rows do not depend on each other."""
    write_variant(tmp_path / "variant")
    return open_classifier(tmp_path / "variant", 1)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=300), st.integers(2, 9), st.integers(0, 9))
def test_every_sentence_is_in_one_batch_with_mates_of_like_length(lengths: list[int], batch: int, seed: int) -> None:
    """Every sentence is in exactly one batch, and beside its neighbours by length only."""
    rows = [[0] * length for length in lengths]
    batches = drawn(rows, batch, random.Random(seed))
    assert sorted(at for places in batches for at in places) == list(range(len(rows)))
    assert all(len(places) <= batch for places in batches)
    rank = {at: place for place, at in enumerate(sorted(range(len(rows)), key=lambda at: lengths[at]))}
    apart = [abs(rank[one] - rank[places[0]]) for places in batches for one in places]
    assert max(apart) < NEIGHBOURS + batch


def test_rows_that_do_not_depend_on_each_other_show_no_change(opened: OpenClassifier) -> None:
    """An engine that computes each row by itself shows no change beyond rounding."""
    found = compared(opened, TEXTS, Settings(batch=4, rounds=2), lambda: None)
    assert (found.flips, found.answers) == (0, 2 * len(TEXTS))
    assert sum(one.sentences for one in found.classes) == len(TEXTS)
    assert max(one.moves[2] for one in found.classes) < 1e-5


def test_answers_that_depend_on_company_are_counted(opened: OpenClassifier) -> None:
    """Every answer that has another label in company is counted, in the class of its margin alone."""
    dependent = OpenClassifier(opened.manifest, ByBatch(), opened.scorer, opened.profile)
    found = compared(dependent, TEXTS, Settings(batch=4, rounds=2), lambda: None)
    assert found.flips == found.answers == 2 * len(TEXTS)
    (only,) = found.classes
    assert (only.below, only.flipped) == (0.1, len(TEXTS))


def test_the_table_is_made_of_held_out_sentences(tmp_path: Path) -> None:
    """The report has every held-out sentence of the file once for each variant."""
    write_variant(tmp_path / "variant")
    heldout = tmp_path / "heldout.jsonl"
    rows = [{"text": text, "label": "positive", "rating": 1.0, "source": "tweets"} for text in TEXTS]
    heldout.write_text("\n".join(map(json.dumps, rows)))
    console = Console(file=StringIO(), width=200)
    report = measure([tmp_path / "variant"], Settings(batch=4, rounds=1, heldout=heldout), console)
    assert present(report, console, markdown=tmp_path / "mates.md") == 0
    assert "24 held-out sentences" in (tmp_path / "mates.md").read_text()
