"""Laws of plain writing: the checkpoint's rules become a search, and the search is run to its end."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from deployments.engines.base import Decoder, Logits, TokenIds
from deployments.replica.writing.beam_search import GOLDEN_TOKENS, search_rules, write, write_golden, write_greedily
from gateway.model.manifest import GenerationRules

START, END, PAD = 1, 2, 0
RULES = GenerationRules(
    decoder_start_token_id=START,
    eos_token_ids=(END,),
    max_new_tokens=40,
    min_new_tokens=3,
    num_beams=2,
    length_penalty=0.6,
    early_stopping=True,
    no_repeat_ngram_size=3,
    forced_eos_token_id=END,
)


@dataclass
class Counting:
    """An engine that writes each token one higher than the last, starting at the text's length, and ends at `last`."""

    last: int = 30
    steps: list[int] = field(default_factory=list)

    def encode(self, token_ids: TokenIds) -> Decoder:
        assert token_ids.dtype == np.int64
        return _Counter(self, len(token_ids))


@dataclass
class _Counter:
    engine: Counting
    at: int

    def step(self, tokens: TokenIds, origins: TokenIds) -> Logits:
        self.engine.steps.append(len(tokens))
        wanted = [self.at if token == START else token + 1 for token in tokens.tolist()]
        scores = np.zeros((len(tokens), 100), dtype=np.float32)
        for row, token in enumerate(wanted):
            scores[row, END if token > self.engine.last else token] = 5
        return scores


def test_the_rules_become_a_search() -> None:
    """Every rule of a checkpoint becomes a rule of the search; a requested length never exceeds the checkpoint's."""
    rules = search_rules(RULES, PAD)
    assert (rules.beams, rules.max_new_tokens, rules.min_new_tokens) == (2, 40, 3)
    assert (rules.pad_token_id, rules.length_penalty, rules.early_stopping) == (PAD, 0.6, True)
    assert (rules.no_repeat_ngram_size, rules.forced_bos_token_id, rules.forced_eos_token_id) == (3, None, END)
    asked = search_rules(RULES, PAD, beams=8, max_new_tokens=100, min_new_tokens=0)
    assert (asked.beams, asked.max_new_tokens, asked.min_new_tokens) == (8, 40, 0)
    assert search_rules(RULES, PAD, max_new_tokens=2).min_new_tokens == 2


def test_greedy_writing_takes_one_row_at_a_time() -> None:
    """Greedy writing runs one row, whatever beams the rules have, and returns no start or end token."""
    engine = Counting(last=14)
    assert write_greedily(engine, [5] * 10, search_rules(RULES, PAD)) == (10, 11, 12, 13, 14)
    assert engine.steps == [1] * 6


def test_beams_write_by_the_same_engine() -> None:
    """An engine that is certain writes the same tokens with beams as without."""
    engine = Counting(last=14)
    assert write(engine, [5] * 10, search_rules(RULES, PAD)) == (10, 11, 12, 13, 14)
    assert max(engine.steps) == 2


@pytest.mark.parametrize(("last", "written"), [(95, GOLDEN_TOKENS - 1), (12, 3)])
def test_a_golden_text_is_written_on_to_so_far(last: int, written: int) -> None:
    """A golden text is written up to its limit, without the forced end."""
    assert len(write_golden(Counting(last), [5] * 10, RULES, PAD)) == written
