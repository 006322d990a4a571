"""Laws of the comparison of next tokens, on logits made by hand, and of what is read of a generation config."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_variants import tokenizer

from deployments.engines.base import Logits
from deployments.replica.tokens import TextTokens
from exporters.errors import SourceRefused
from exporters.kinds.causal import (
    FLOORS,
    MAX_NEW_TOKENS,
    UNKNOWN,
    USED,
    Asked,
    NextTokenFloors,
    compare_next_tokens,
    floors_of,
    rules_of,
    scored,
    source_scored,
)
from exporters.kinds.generation import for_task
from exporters.sources.texts import Text, TextSet
from gateway.model.manifest import Precision
from gateway.tasks.generate import WritingRules

ROWS = [[4, 5, 6, 7], [5, 4]]
TEXTS = TextSet("by hand", (Text("a film good bad"), Text("film a")))
LOOSE = NextTokenFloors(0.0, 1e9)


def sure_of(*tokens: int, by: float = 4.0) -> Logits:
    """Logits (tokens, vocabulary) that are sure of these next tokens."""
    found: Logits = np.eye(9, dtype=np.float32)[list(tokens)] * by
    return found


SOURCE = [scored(sure_of(5, 6, 7, 8), ROWS[0]), scored(sure_of(4, 3), ROWS[1])]
ASKED = Asked(TEXTS, ROWS, SOURCE)


def tokens() -> TextTokens:
    """The tokenizer that shows differences."""
    return TextTokens(tokenizer())


def test_nats_are_of_the_tokens_that_follow() -> None:
    """A token that is sure takes few nats, one of nine equally likely log 9; the last token has none after it."""
    sure, even = scored(sure_of(5, 6, 7, 8), ROWS[0]), scored(sure_of(5, 6, 7, 8, by=0.0), ROWS[0])
    assert sure.likeliest.tolist() == [5, 6, 7, 8] and len(sure.nats) == 3
    np.testing.assert_allclose(sure.nats, np.log(np.e**4 + 8) - 4, rtol=1e-6)
    np.testing.assert_allclose(even.nats, np.log(9), rtol=1e-6)


def test_a_variant_like_its_source_breaks_nothing() -> None:
    """Equal logits agree everywhere, whatever the precision."""
    for floors in FLOORS.values():
        compared = compare_next_tokens(ASKED, SOURCE, tokens(), floors)
        assert compared.broken is None and not compared.differences
        found = compared.verification
        assert (found.texts, found.tokens, found.agreement) == (2, 6, 1.0)
        assert found.nats == found.source_nats > 0


def test_each_floor_is_told_in_words() -> None:
    """Too few equal next tokens, and too many nats lost, are each a reason to refuse; the worst text comes first."""
    said = [scored(sure_of(5, 6, 8, 8), ROWS[0]), scored(sure_of(3, 3), ROWS[1])]
    compared = compare_next_tokens(ASKED, said, tokens(), NextTokenFloors(0.9, 1e9))
    assert compared.broken == "66.67% of 6 next tokens are the source's, under the floor of 90.0%"
    assert [(one.text, one.variant.split(":")[0]) for one in compared.differences] == [(1, "0"), (0, "2")]
    broken = compare_next_tokens(ASKED, said, tokens(), NextTokenFloors(0.5, 0.1)).broken
    assert broken is not None and "a loss over the ceiling of 0.100" in broken


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_breaks_a_floor(strange: float) -> None:
    """Logits that are no numbers are never within a ceiling."""
    logits = sure_of(5, 6, 7, 8)
    logits[1] = strange
    with np.errstate(invalid="ignore", over="ignore"):
        said = [scored(logits, ROWS[0]), SOURCE[1]]
    assert compare_next_tokens(ASKED, said, tokens(), floors_of(Precision.INT8, 0.5)).broken is not None


def test_a_floor_of_ones_own_replaces_the_precision_s() -> None:
    """A floor that is given holds for next tokens, and lets as many nats be lost."""
    assert floors_of(Precision.INT8, None) == FLOORS[Precision.INT8]
    assert floors_of(Precision.FP32, 0.75) == NextTokenFloors(0.75, 0.25)


def test_as_many_texts_are_asked_as_time_allows() -> None:
    """The source is asked one text after the other until the next one would not fit; one always is."""
    now = iter(range(100))
    asked: list[int] = []

    def ask(row: Any) -> Logits:
        asked.append(len(row))
        return sure_of(*row)

    found = source_scored(ask, ROWS * 4, lambda: float(next(now)), 3.0, lambda share: None)
    assert len(found) == len(asked) == 3
    assert len(source_scored(ask, ROWS, lambda: float(next(now)), 0.5, lambda share: None)) == 1


def read(generation: dict[str, Any], config: dict[str, Any] | None = None) -> WritingRules:
    """The rules of a generation config."""
    known = {*USED, *UNKNOWN}
    return rules_of(for_task(generation, config or {}, "text-generation", known, MAX_NEW_TOKENS), "here")


def test_a_config_that_says_nothing_writes_greedily() -> None:
    """Without a word of the checkpoint, the likeliest token is taken each time, up to the pipeline's own length."""
    assert read({}) == WritingRules(eos_token_ids=(), max_new_tokens=MAX_NEW_TOKENS)
    assert read({"max_length": 20}).max_new_tokens == MAX_NEW_TOKENS  # the library's default, which nobody chose
    assert read({"do_sample": True, "temperature": 0.0}).sample is False


def test_the_pipeline_s_own_settings_count() -> None:
    """What config.json says for text generation is used in place of the generation config, as by the pipeline."""
    special = {"text-generation": {"do_sample": True, "max_length": 50}, "summarization": {"num_beams": 4}}
    rules = read({"eos_token_id": 3, "top_k": 50}, {"task_specific_params": special})
    assert (rules.sample, rules.max_new_tokens, rules.top_k, rules.eos_token_ids) == (True, 50, 50, (3,))


@pytest.mark.parametrize("name", ["num_beams", "no_repeat_ngram_size", "bad_words_ids", "stop_strings"])
def test_what_replicas_do_not_do_is_named(name: str) -> None:
    """A setting that replicas do not support is refused by name and value."""
    with pytest.raises(SourceRefused, match=f"here: its generation config asks for {name}=7, which is not supported"):
        read({name: 7})
