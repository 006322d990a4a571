"""Laws of encoder-decoders: the generation rules of a checkpoint, and how its variant is compared with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from small_variants import tokenizer

from deployments.replica.tokens import TextTokens
from deployments.replica.writing.beam_search import SearchRules
from exporters.errors import SourceRefused
from exporters.kinds.seq2seq import (
    ASKED_AT_ONCE,
    FLOORS,
    MAX_NEW_TOKENS,
    VERIFIED_TOKENS,
    WritingFloors,
    compare_writing,
    floors_of,
    lower_cases,
    rules_of,
    source_writing,
    stripped,
    summarising,
)
from exporters.sources.texts import Text, TextSet
from gateway.model.manifest import Precision

BART: dict[str, Any] = {
    "decoder_start_token_id": 2,
    "eos_token_id": 2,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 2,
    "max_length": 142,
    "min_length": 56,
    "num_beams": 4,
    "length_penalty": 2.0,
    "early_stopping": True,
    "no_repeat_ngram_size": 3,
    "repetition_penalty": 1.0,
}
T5: dict[str, Any] = {
    "task_specific_params": {
        "summarization": {"prefix": "summarize: ", "max_length": 200, "min_length": 30, "num_beams": 4},
        "translation_en_to_de": {"prefix": "translate English to German: "},
    }
}


def test_a_bart_s_config_becomes_its_rules() -> None:
    """A BART's total lengths become numbers of new tokens, which exclude the start token."""
    rules = rules_of(summarising(BART, {}), {}, "here", lower_cased=False)
    assert (rules.max_new_tokens, rules.min_new_tokens) == (141, 55)
    assert (rules.decoder_start_token_id, rules.eos_token_ids) == (2, (2,))
    assert (rules.forced_bos_token_id, rules.forced_eos_token_id) == (0, 2)
    assert (rules.num_beams, rules.length_penalty, rules.early_stopping) == (4, 2.0, True)
    assert (rules.no_repeat_ngram_size, rules.prefix, rules.lower_cased) == (3, "", False)


def test_a_t5_s_summarisation_comes_before_its_defaults() -> None:
    """A T5's settings for summarisation, such as prefix, lengths and beams, take precedence over its defaults."""
    plain = {"decoder_start_token_id": 0, "eos_token_id": 1, "max_length": 20, "num_beams": 1}
    rules = rules_of(summarising(plain, T5), T5, "here", lower_cased=False)
    assert (rules.prefix, rules.max_new_tokens, rules.min_new_tokens, rules.num_beams) == ("summarize: ", 199, 29, 4)


def test_lengths_in_new_tokens_are_taken_as_they_are() -> None:
    """Lengths given in new tokens are used unchanged and take precedence over total lengths, as in transformers."""
    rules = rules_of(BART | {"max_new_tokens": 60, "min_new_tokens": 5}, {}, "here", lower_cased=True)
    assert (rules.max_new_tokens, rules.min_new_tokens, rules.lower_cased) == (60, 5, True)


def test_a_checkpoint_that_gives_no_length_gets_one() -> None:
    """A checkpoint without a length gets our default, because the library's 20 tokens are too few for a summary."""
    plain = {"decoder_start_token_id": 0, "eos_token_id": [1, 7], "max_length": 20}
    rules = rules_of(summarising(plain, {}), {}, "here", lower_cased=False)
    assert (rules.max_new_tokens, rules.min_new_tokens, rules.eos_token_ids) == (MAX_NEW_TOKENS, 0, (1, 7))


@pytest.mark.parametrize(
    ("field", "value"),
    [("repetition_penalty", 1.2), ("suppress_tokens", [5]), ("early_stopping", "never"), ("num_beam_groups", 2)],
)
def test_what_no_replica_does_is_refused_by_its_field(field: str, value: object) -> None:
    """A setting that replicas do not support is refused by its name, since the variant would differ from its source."""
    with pytest.raises(SourceRefused, match=f"here: its generation config asks for {field}="):
        rules_of(BART | {field: value}, {}, "here", lower_cased=False)


def test_a_checkpoint_without_a_first_token_is_refused() -> None:
    """A checkpoint without a start token is refused; `bos_token_id` may replace it, as in transformers."""
    without = {"decoder_start_token_id": None, "bos_token_id": None, "max_length": 30}
    with pytest.raises(SourceRefused, match="decoder_start_token_id"):
        rules_of(without, {}, "here", lower_cased=False)
    assert rules_of(without | {"bos_token_id": 4}, {}, "here", lower_cased=False).decoder_start_token_id == 4


@pytest.mark.parametrize(
    ("normalizer", "lower"),
    [
        (None, False),
        ({"type": "Lowercase"}, True),
        ({"type": "BertNormalizer", "lowercase": True}, True),
        ({"type": "BertNormalizer", "lowercase": False}, False),
        ({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}, True),
        ({"type": "Precompiled", "precompiled_charsmap": "x"}, False),
    ],
)
def test_lost_capitals_are_seen_by_the_normalizer(normalizer: object, lower: bool) -> None:
    """Lower-casing is found anywhere in the normalizer."""
    assert lower_cases({"normalizer": normalizer}) is lower


GOOD, BAD, FILM, VERY = 6, 7, 5, 8
RULES = SearchRules(decoder_start_token_id=2, eos_token_ids=(3,), pad_token_id=0, max_new_tokens=VERIFIED_TOKENS)
SOURCE = [(GOOD, FILM), (BAD, FILM), (VERY, GOOD), (FILM,)]
FLOORS_HERE = WritingFloors(same_tokens=0.75, rouge_l_to_source=0.8, rouge_l_drop=0.1)
PLAIN = TextSet("set", tuple(Text(f"text {at}") for at in range(4)))
BORNE = TextSet("set", tuple(Text("text", one) for one in ("good film", "bad film", "very good", "film")))


@pytest.fixture(scope="module")
def tokens() -> TextTokens:
    """A tokenizer of lower-cased words."""
    made = tokenizer()
    made.no_truncation()
    made.no_padding()
    return TextTokens(made)


@dataclass
class Machine:
    """A source and a clock in one: each batch takes a second, and each text is answered with its own numbers."""

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
    """A slow source answers fewer texts, within the budget, and each batch samples the whole set."""
    machine, told = Machine(), list[float]()
    texts = TextSet("set", tuple(Text(f"{at} {at}") for at in range(10, 40)))
    asked, written = source_writing(
        machine.encode, machine.write, texts, RULES, machine.clock, budget_s or 0.001, told.append
    )
    assert len(machine.batches) == batches and max(machine.batches) <= ASKED_AT_ONCE
    assert [one.text for one in asked.texts] == [f"{a} {b}" for a, b in written]
    assert max(a for a, _ in written) - min(a for a, _ in written) >= 20
    assert told == sorted(told) and told[-1] == 1.0


def test_a_row_of_transformers_is_read_as_a_search_gives_it() -> None:
    """A row of transformers is read up to its end token, without start token and padding."""
    assert stripped([2, 5, 6, 3, 0, 0], RULES) == (5, 6)
    assert stripped([5, 6], RULES) == (5, 6)


def test_a_variant_that_writes_alike_passes_every_floor(tokens: TextTokens) -> None:
    """A variant that writes equal summaries passes every floor and shows no differences."""
    found = compare_writing(SOURCE, SOURCE, tokens, PLAIN, WritingFloors(1.0, 1.0, 0.0))
    checked = found.verification
    assert (found.broken, found.differences) == (None, ())
    assert (checked.same_tokens, checked.rouge_l_to_source, checked.rouge_l) == (1.0, 1.0, None)


def test_a_variant_under_its_floor_is_told_by_where_it_went_astray(tokens: TextTokens) -> None:
    """A variant below its floor is refused; each difference shows both sides from the first differing token."""
    variant = [SOURCE[0], (BAD, GOOD), (VERY,), SOURCE[3]]
    found = compare_writing(SOURCE, variant, tokens, PLAIN, FLOORS_HERE)
    assert found.broken is not None and "50% of 4 texts" in found.broken and "floor of 75%" in found.broken
    first, second = found.differences
    assert (first.text, first.source, first.variant) == (1, "… film", "… good")
    assert (second.text, second.source, second.variant) == (2, "… good", "… (nothing)")


def test_a_source_that_writes_nothing_proves_nothing(tokens: TextTokens) -> None:
    """A source that writes nothing does not count as agreement, and the refusal says so."""
    found = compare_writing([(), *SOURCE[1:]], [(), *SOURCE[1:]], tokens, PLAIN, WritingFloors(0.9, 0.0))
    assert found.verification.same_tokens == 0.75
    assert found.broken is not None and "for 1 of them the source generates nothing" in found.broken


def test_without_summaries_the_source_is_the_measure(tokens: TextTokens) -> None:
    """Without summaries, a variant's texts must be similar to its source's by ROUGE-L."""
    variant = [*SOURCE[:3], (BAD, BAD, BAD)]
    found = compare_writing(SOURCE, variant, tokens, PLAIN, FLOORS_HERE)
    assert found.broken is not None and "against the source is 0.750" in found.broken


def test_with_summaries_they_are(tokens: TextTokens) -> None:
    """With summaries, a variant passes if it loses no more ROUGE-L against them than allowed."""
    variant = [*SOURCE[:3], (BAD, BAD, BAD)]
    many = TextSet("set", BORNE.texts * 20)
    lost = compare_writing(SOURCE * 20, variant * 20, tokens, many, FLOORS_HERE)
    assert lost.broken is not None and "ROUGE-L is 0.750 and the source's 1.000" in lost.broken
    allowed = compare_writing(SOURCE * 20, variant * 20, tokens, many, WritingFloors(0.75, 0.8, 0.3))
    assert (allowed.broken, allowed.verification.source_rouge_l) == (None, 1.0)
    assert 0.3 < allowed.verification.rouge_l_drop_ceiling < 0.5


def test_a_loss_that_chance_explains_is_none(tokens: TextTokens) -> None:
    """A loss within two standard errors passes, and the manifest records that ceiling."""
    found = compare_writing(SOURCE, [*SOURCE[:3], (BAD, BAD, BAD)], tokens, BORNE, FLOORS_HERE)
    assert found.broken is None
    assert found.verification.rouge_l_drop_ceiling == pytest.approx(0.1 + 2 * 0.5 / 4**0.5)


def test_a_floor_that_was_asked_for_takes_the_place_of_both() -> None:
    """A requested floor replaces both floors of agreement, but not the allowed loss of ROUGE-L."""
    assert floors_of(Precision.INT8, None, 0.01).same_tokens == FLOORS[Precision.INT8].same_tokens
    assert floors_of(Precision.INT8, 0.1, 0.02) == WritingFloors(0.1, 0.1, 0.02)
