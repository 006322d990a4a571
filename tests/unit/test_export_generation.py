"""Laws of the rules of writing: what a checkpoint's files ask for is what the manifest says, or it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from exporters.errors import SourceRefused
from exporters.generation import MAX_NEW_TOKENS, lower_cases, rules_of, summarising

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
    """Lengths in tokens of all become lengths in new ones: the start token is not new."""
    rules = rules_of(summarising(BART, {}), {}, "here", lower_cased=False)
    assert (rules.max_new_tokens, rules.min_new_tokens) == (141, 55)
    assert (rules.decoder_start_token_id, rules.eos_token_ids) == (2, (2,))
    assert (rules.forced_bos_token_id, rules.forced_eos_token_id) == (0, 2)
    assert (rules.num_beams, rules.length_penalty, rules.early_stopping) == (4, 2.0, True)
    assert (rules.no_repeat_ngram_size, rules.prefix, rules.lower_cased) == (3, "", False)


def test_a_t5_s_summarisation_comes_before_its_defaults() -> None:
    """Its prefix, its lengths and its beams, and none of its translation's."""
    plain = {"decoder_start_token_id": 0, "eos_token_id": 1, "max_length": 20, "num_beams": 1}
    rules = rules_of(summarising(plain, T5), T5, "here", lower_cased=False)
    assert (rules.prefix, rules.max_new_tokens, rules.min_new_tokens, rules.num_beams) == ("summarize: ", 199, 29, 4)


def test_lengths_in_new_tokens_are_taken_as_they_are() -> None:
    """They come before lengths in tokens of all, as in transformers."""
    rules = rules_of(BART | {"max_new_tokens": 60, "min_new_tokens": 5}, {}, "here", lower_cased=True)
    assert (rules.max_new_tokens, rules.min_new_tokens, rules.lower_cased) == (60, 5, True)


def test_a_checkpoint_that_gives_no_length_gets_one() -> None:
    """The library's 20 tokens are no summary."""
    plain = {"decoder_start_token_id": 0, "eos_token_id": [1, 7], "max_length": 20}
    rules = rules_of(summarising(plain, {}), {}, "here", lower_cased=False)
    assert (rules.max_new_tokens, rules.min_new_tokens, rules.eos_token_ids) == (MAX_NEW_TOKENS, 0, (1, 7))


@pytest.mark.parametrize(
    ("field", "value"),
    [("repetition_penalty", 1.2), ("suppress_tokens", [5]), ("early_stopping", "never"), ("num_beam_groups", 2)],
)
def test_what_no_replica_does_is_refused_by_its_field(field: str, value: object) -> None:
    """The variant would write otherwise than its source, and nobody would know why."""
    with pytest.raises(SourceRefused, match=f"here: its generation config asks for {field}="):
        rules_of(BART | {field: value}, {}, "here", lower_cased=False)


def test_a_checkpoint_without_a_first_token_is_refused() -> None:
    """By the field's name; where there is a `bos_token_id` it is taken, as in transformers."""
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
    """Wherever in it they are lost."""
    assert lower_cases({"normalizer": normalizer}) is lower
