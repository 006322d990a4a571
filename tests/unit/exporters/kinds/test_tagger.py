"""Laws of a tagger's verification, on labels made by hand: what counts as agreement, and what breaks a floor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deployments.engines.base import Logits
from exporters.errors import ExportFailed
from exporters.kinds.shapes import prove_shapes
from exporters.kinds.tagger import FLOORS, TaggingFloors, compare_tags, floors_of
from exporters.sources.texts import Text, TextSet
from exporters.verification import run_rows
from gateway.model.manifest import Precision

LABELS = ("O", "B-PER", "I-PER")
TEXTS = TextSet("by hand", (Text("a b c d"), Text("e f")))
LOOSE = TaggingFloors(0.0, 0.0, 100.0)


def tagged(*labels: int) -> Logits:
    """Logits (tokens, labels) with these best labels."""
    found: Logits = np.eye(len(LABELS), dtype=np.float32)[list(labels)] * 4
    return found


SOURCE = [tagged(0, 1, 2, 0), tagged(0, 0)]


def test_a_variant_like_its_source_breaks_nothing() -> None:
    """Equal logits agree in every token, whatever the precision."""
    for floors in FLOORS.values():
        compared = compare_tags(SOURCE, SOURCE, LABELS, TEXTS, floors)
        assert compared.broken is None and not compared.differences
        found = compared.verification
        assert (found.texts, found.tokens, found.tagged_tokens) == (2, 6, 2)
        assert (found.label_agreement, found.tagged_agreement, found.logit_error) == (1.0, 1.0, 0.0)


def test_agreement_is_counted_by_token() -> None:
    """Each token counts once; those that the source finds something in are counted by themselves too."""
    said = [tagged(0, 1, 0, 0), tagged(0, 1)]
    compared = compare_tags(SOURCE, said, LABELS, TEXTS, LOOSE)
    found = compared.verification
    assert (found.label_agreement, found.tagged_agreement) == (4 / 6, 1 / 2)
    assert [(one.text, one.source, one.variant) for one in compared.differences] == [
        (0, "2:I-PER", "2:O"),
        (1, "1:O", "1:B-PER"),
    ]
    nothing = compare_tags(SOURCE[1:], said[1:], LABELS, TEXTS, LOOSE).verification
    assert nothing.tagged_agreement is None and nothing.tagged_tokens == 0


def test_each_floor_is_told_in_words() -> None:
    """Too few equal labels, too few of what is found, and logits too far off are each a reason to refuse."""
    said = [tagged(0, 1, 0, 0), tagged(0, 0)]
    for floors, words in (
        (replace(LOOSE, label_agreement=0.9), "83.33% of the labels of 6 tokens agree with the source"),
        (replace(LOOSE, tagged_agreement=0.9), "50.00% of the 2 tokens that the source finds something in"),
        (replace(LOOSE, logit_error=0.1), "its logits are off by"),
    ):
        broken = compare_tags(SOURCE, said, LABELS, TEXTS, floors).broken
        assert broken is not None and words in broken


@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_what_is_no_number_breaks_a_floor(strange: float) -> None:
    """A logit that is not a number is never within a ceiling, though the labels may agree."""
    said = [SOURCE[0].copy(), SOURCE[1]]
    said[0][0, 2] = strange if strange != np.inf else -np.inf
    broken = compare_tags(SOURCE, said, LABELS, TEXTS, floors_of(Precision.INT8, 0.5)).broken
    assert broken is not None


def test_a_floor_of_ones_own_replaces_the_precision_s() -> None:
    """A floor that is given holds for both agreements, and lets logits be off by as much as it allows labels to."""
    assert floors_of(Precision.INT8, None) == FLOORS[Precision.INT8]
    assert floors_of(Precision.FP32, 0.75) == TaggingFloors(0.75, 0.75, 0.25)


def test_padding_is_left_out_of_what_is_compared() -> None:
    """Rows of unlike lengths have the logits of their own tokens, in order; what stands for padding does not count."""

    def run(rows: list[list[int]]) -> Logits:
        longest = max(map(len, rows))
        found: Logits = np.full((len(rows), longest, 2), 1e9, dtype=np.float32)
        for at, row in enumerate(rows):
            found[at, : len(row)] = np.asarray(row)[:, None]
        return found

    rows = [[1, 2, 3], [4], [5, 6]]
    assert [one[:, 0].tolist() for one in run_rows(rows, run, lambda share: None)] == rows
    batches = [[row] for row in rows] + [rows]
    prove_shapes("made up", batches, run, run)

    def shifted(rows: list[list[int]]) -> Logits:
        found: Logits = run(rows) + np.float32(len(rows) > 1)
        return found

    with pytest.raises(ExportFailed, match=r"for a batch of 3 texts of 3, 1, 2 tokens a logit is 1 off"):
        prove_shapes("made up", batches, run, shifted)
