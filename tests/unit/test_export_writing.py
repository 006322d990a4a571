"""Laws of the comparison between what an encoder-decoder's variant writes and what its source does."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from small_variants import tokenizer

from deployments.replica.summarize.beam_search import SearchRules
from deployments.replica.tokens import TextTokens
from exporters.errors import SourceRefused
from exporters.rouge import mean_rouge_l
from exporters.source import SourceFolder
from exporters.texts import SummarisedText, SummarySet, summary_set
from exporters.verify_writing import (
    BATCH,
    FLOORS,
    VERIFIED_TOKENS,
    WritingFloors,
    compare_writing,
    source_writing,
    stripped,
    writing_floors,
)
from gateway.model.manifest import Precision

GOOD, BAD, FILM, VERY = 6, 7, 5, 8
RULES = SearchRules(decoder_start_token_id=2, eos_token_ids=(3,), pad_token_id=0, max_new_tokens=VERIFIED_TOKENS)
SOURCE = [(GOOD, FILM), (BAD, FILM), (VERY, GOOD), (FILM,)]
FLOORS_HERE = WritingFloors(same_tokens=0.75, rouge_l_to_source=0.8, rouge_l_drop=0.1)
PLAIN = SummarySet("set", tuple(SummarisedText(f"text {at}") for at in range(4)))
BORNE = SummarySet("set", tuple(SummarisedText("text", one) for one in ("good film", "bad film", "very good", "film")))


@pytest.fixture(scope="module")
def tokens() -> TextTokens:
    """Words, lower-cased."""
    made = tokenizer()
    made.no_truncation()
    made.no_padding()
    return TextTokens(made)


@dataclass
class Machine:
    """A source and a clock in one: every batch takes a second, every text is answered by its length."""

    now: float = 0.0
    batches: list[int] = field(default_factory=list)

    def encode(self, text: str) -> list[int]:
        return [2, *map(int, text.split()), 3]

    def write(self, rows: list[list[int]], most: int) -> list[list[int]]:
        assert most == VERIFIED_TOKENS
        self.now += 1.0
        self.batches.append(len(rows))
        return [[*row[1:-1], 3, 0, 0] for row in rows]

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize(("budget_s", "batches"), [(100.0, 8), (3.5, 3), (0.0, 1)])
def test_a_slow_source_is_asked_about_fewer_texts_of_every_kind(budget_s: float, batches: int) -> None:
    """At least one batch, never past the budget, and each batch from all over the set; answers stand at their texts."""
    machine, told = Machine(), list[float]()
    texts = SummarySet("set", tuple(SummarisedText(f"{at} {at}") for at in range(10, 40)))
    asked, written = source_writing(
        machine.encode, machine.write, texts, RULES, machine.clock, budget_s or 0.001, told.append
    )
    assert len(machine.batches) == batches and max(machine.batches) <= BATCH
    assert [one.text for one in asked.texts] == [f"{a} {b}" for a, b in written]
    assert max(a for a, _ in written) - min(a for a, _ in written) >= 20
    assert told == sorted(told) and told[-1] == 1.0


def test_a_row_of_transformers_is_read_as_a_search_gives_it() -> None:
    """Up to its end, without start and padding."""
    assert stripped([2, 5, 6, 3, 0, 0], RULES) == (5, 6)
    assert stripped([5, 6], RULES) == (5, 6)


def test_a_variant_that_writes_alike_passes_every_floor(tokens: TextTokens) -> None:
    """Nothing differs, so there is nothing to show."""
    found = compare_writing(SOURCE, SOURCE, tokens, PLAIN, WritingFloors(1.0, 1.0, 0.0))
    checked = found.verification
    assert (found.broken, found.differences) == (None, ())
    assert (checked.same_tokens, checked.rouge_l_to_source, checked.rouge_l) == (1.0, 1.0, None)


def test_a_variant_under_its_floor_is_told_by_where_it_went_astray(tokens: TextTokens) -> None:
    """Both sides from the first token that differs."""
    variant = [SOURCE[0], (BAD, GOOD), (VERY,), SOURCE[3]]
    found = compare_writing(SOURCE, variant, tokens, PLAIN, FLOORS_HERE)
    assert found.broken is not None and "50% of 4 texts" in found.broken and "floor of 75%" in found.broken
    first, second = found.differences
    assert (first.text, first.source, first.variant) == (1, "… film", "… good")
    assert (second.text, second.source, second.variant) == (2, "… good", "… (nothing)")


def test_a_source_that_writes_nothing_proves_nothing(tokens: TextTokens) -> None:
    """Silence that equals silence is no agreement, and the refusal says whose it is."""
    found = compare_writing([(), *SOURCE[1:]], [(), *SOURCE[1:]], tokens, PLAIN, WritingFloors(0.9, 0.0))
    assert found.verification.same_tokens == 0.75
    assert found.broken is not None and "to 1 of them the source writes nothing" in found.broken


def test_without_summaries_the_source_is_the_measure(tokens: TextTokens) -> None:
    """What is not written alike must at least be like it."""
    variant = [*SOURCE[:3], (BAD, BAD, BAD)]
    found = compare_writing(SOURCE, variant, tokens, PLAIN, FLOORS_HERE)
    assert found.broken is not None and "against the source is 0.750" in found.broken


def test_with_summaries_they_are(tokens: TextTokens) -> None:
    """The same writing passes where it loses no more than it may, and does not where it loses more."""
    variant = [*SOURCE[:3], (BAD, BAD, BAD)]
    many = SummarySet("set", BORNE.texts * 20)
    lost = compare_writing(SOURCE * 20, variant * 20, tokens, many, FLOORS_HERE)
    assert lost.broken is not None and "ROUGE-L is 0.750 and the source's 1.000" in lost.broken
    allowed = compare_writing(SOURCE * 20, variant * 20, tokens, many, WritingFloors(0.75, 0.8, 0.3))
    assert (allowed.broken, allowed.verification.source_rouge_l) == (None, 1.0)
    assert 0.3 < allowed.verification.rouge_l_drop_ceiling < 0.5


def test_a_loss_that_chance_explains_is_none(tokens: TextTokens) -> None:
    """One text of four that went wrong proves nothing: the ceiling in the manifest is two standard errors higher."""
    found = compare_writing(SOURCE, [*SOURCE[:3], (BAD, BAD, BAD)], tokens, BORNE, FLOORS_HERE)
    assert found.broken is None
    assert found.verification.rouge_l_drop_ceiling == pytest.approx(0.1 + 2 * 0.5 / 4**0.5)


def test_a_floor_that_was_asked_for_takes_the_place_of_both() -> None:
    """And stands in the manifest; the ROUGE-L that may be lost is another matter."""
    assert writing_floors(Precision.INT8, None, 0.01).same_tokens == FLOORS[Precision.INT8].same_tokens
    assert writing_floors(Precision.INT8, 0.1, 0.02) == WritingFloors(0.1, 0.1, 0.02)


def test_rouge_l_counts_stems_in_order() -> None:
    """F1 of the longest common run of words; nothing against nothing is the same."""
    assert mean_rouge_l(["the cats sat"], ["the cat sat"]) == 1.0
    assert mean_rouge_l(["a b"], ["b a"]) == pytest.approx(0.5)
    assert mean_rouge_l(["", "a"], ["", "b"]) == 0.5
    with pytest.raises(ValueError, match="no texts"):
        mean_rouge_l([], [])


def test_texts_with_summaries_are_found_by_their_checkpoint(tmp_path: Path) -> None:
    """Its own, else its starter's, else those of all; a line separator within a text ends no line."""
    source = SourceFolder(tmp_path, "starter:bart-software", "", "0", tmp_path)
    assert summary_set(source).name == "starter software-heldout"
    heldout = tmp_path / "heldout.jsonl"
    heldout.write_text(json.dumps({"text": "a\u2028b", "summary": "c"}, ensure_ascii=False) + "\n")
    other = SourceFolder(tmp_path, "elsewhere", "", "0", tmp_path)
    assert summary_set(other, heldout) == SummarySet("starter heldout", (SummarisedText("a\u2028b", "c"),))
    (tmp_path / "verification.jsonl").write_text('{"text": "own"}\n{"text": "own", "summary": "s"}\n')
    own = summary_set(source, heldout)
    assert (own.name, own.summaries) == ("verification.jsonl", None)
    assert own.spread(1).texts == own.texts[:1]
    (tmp_path / "verification.jsonl").write_text('{"text": "own"}\n{"summary": "s"}\n')
    with pytest.raises(SourceRefused, match="line 2"):
        summary_set(source)
    (tmp_path / "verification.jsonl").unlink()
    with pytest.raises(SourceRefused, match="no texts to verify it on"):
        summary_set(other, tmp_path / "nowhere.jsonl")
