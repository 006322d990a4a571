"""Laws of an answerer's verification, on logits made by hand: what counts as the same answer, what breaks a floor."""

from __future__ import annotations

import numpy as np
import pytest
from fake_answerers import WINDOW, tokenizer

from deployments.engines.base import Logits
from deployments.replica.answering.reading import QuestionReader
from exporters.kinds.answerer import FLOORS, Asked, SpanFloors, compare_answers, floors_of
from exporters.sources.texts import Text, TextSet
from gateway.model.manifest import Precision

CONTEXTS = ("ann lee and bob said .", "bob said ann", " ".join(["ann and lee said ."] * 4))
LOOSE = SpanFloors(0.0, 100.0)


def pointing(rows: list[list[int]], words: dict[int, int]) -> list[Logits]:
    """Logits (tokens, 2) of each row that begin and end an answer at a token; 4 tokens are before the context."""
    found = []
    for at, row in enumerate(rows):
        logits: Logits = np.zeros((len(row), 2), dtype=np.float32)
        logits[4 + words.get(at, 0)] = 9
        found.append(logits)
    return found


def asked() -> Asked:
    """Three questions whose contexts take several windows, answered by the first token of each."""
    reader = QuestionReader(tokenizer(), WINDOW, types=True)
    contexts = [reader.read("who ?", context) for context in CONTEXTS]
    rows = [one.token_ids for read in contexts for one in reader.encoded(read)]
    texts = TextSet("by hand", tuple(Text(context, "who ?") for context in CONTEXTS))
    return Asked(texts, contexts, rows, pointing(rows, {}), {}, no_answer_token=True)


def test_a_variant_like_its_source_breaks_nothing() -> None:
    """Equal logits give equal answers, whatever the precision."""
    made = asked()
    for floors in FLOORS.values():
        compared = compare_answers(made, made.meant, floors)
        assert compared.broken is None and not compared.differences
        found = compared.verification
        assert (found.questions, found.windows, found.same_answers) == (3, len(made.rows), 1.0)
        assert found.windows > 3 and found.logit_error == 0


def test_an_answer_is_the_same_by_its_place() -> None:
    """A question is answered alike if both borders are, wherever the logits lie; what differs is shown."""
    made = asked()
    shifted = compare_answers(made, [logits + 1 for logits in made.meant], LOOSE)
    assert shifted.verification.same_answers == 1.0 and shifted.verification.logit_error > 0.1
    other = compare_answers(made, pointing(made.rows, {1: 2}), LOOSE)
    assert other.verification.same_answers == pytest.approx(2 / 3)
    ((difference),) = other.differences
    assert (difference.text, difference.source, difference.variant) == (1, "0-3: bob", "9-12: ann")


def test_each_floor_is_told_in_words() -> None:
    """Too few equal answers, and logits too far off, are each a reason to refuse."""
    made = asked()
    broken = compare_answers(made, pointing(made.rows, {1: 2}), SpanFloors(0.9, 100.0)).broken
    assert broken is not None and "66.67% of 3 questions have the source's answer" in broken
    broken = compare_answers(made, [logits + 1 for logits in made.meant], SpanFloors(0.9, 0.1)).broken
    assert broken is not None and "its logits are off by" in broken


@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_what_is_no_number_breaks_a_floor(strange: float) -> None:
    """A logit that is not a number is never within a ceiling, though the answers may agree."""
    made = asked()
    said = [logits.copy() for logits in made.meant]
    said[0][0, 0] = strange if strange != np.inf else -np.inf
    assert compare_answers(made, said, floors_of(Precision.INT8, 0.1)).broken is not None


def test_a_floor_of_ones_own_replaces_the_precision_s() -> None:
    """A floor that is given holds for answers, and lets logits be off by as much as it allows answers to."""
    assert floors_of(Precision.INT8, None) == FLOORS[Precision.INT8]
    assert floors_of(Precision.FP32, 0.75) == SpanFloors(0.75, 0.25)
