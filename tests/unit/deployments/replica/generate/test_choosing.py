"""Choosing the next token: as transformers' `generate` does, and repeatably by a seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.generation import logits_process as theirs

from deployments.replica.generate.choosing import Choice, Chooser, shaped
from gateway.tasks.generate import GenerateParameters, WritingRules

VOCABULARY, END = 50, 49
RULES = WritingRules(eos_token_ids=(END,), max_new_tokens=20)


def choice(**given: float | bool | None) -> Choice:
    """How a request with these parameters chooses."""
    return Choice.of(GenerateParameters(**given), RULES)  # type: ignore[arg-type]  # by name, each of its own kind


def logits(seed: int) -> np.ndarray:
    """Logits of one step, by chance."""
    return np.random.default_rng(seed).normal(scale=3, size=VOCABULARY).astype(np.float32)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "penalty"),
    [(1.0, 0, 1.0, 1.0), (0.7, 5, 1.0, 1.0), (1.3, 0, 0.8, 1.0), (0.6, 20, 0.9, 1.3), (1.0, 1, 0.1, 0.8)],
)
def test_tokens_are_drawn_with_the_probabilities_of_transformers(
    seed: int, temperature: float, top_k: int, top_p: float, penalty: float
) -> None:
    """Penalty, temperature, top_k and top_p shape the logits as transformers' processors do, in their order."""
    prompt, found = [3, 5, 7, 7], logits(seed)
    given = choice(sample=True, temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=penalty)
    ours = shaped(Chooser(given, prompt, np.random.default_rng(0)).scores(found), given)
    processors: list[theirs.LogitsProcessor] = [theirs.TemperatureLogitsWarper(temperature)]
    if penalty != 1.0:
        processors.insert(0, theirs.RepetitionPenaltyLogitsProcessor(penalty))
    processors += [theirs.TopKLogitsWarper(top_k)] if top_k else []
    processors += [theirs.TopPLogitsWarper(top_p)] if top_p < 1.0 else []
    scores = torch.from_numpy(found)[None].double()
    for one in processors:
        scores = one(torch.tensor([prompt]), scores)
    assert ours == pytest.approx(torch.softmax(scores, -1)[0].numpy(), abs=1e-9)


def test_without_sampling_the_likeliest_token_is_taken_after_penalties() -> None:
    """A token that the prompt has loses its lead to a high penalty, and never is one chosen by chance."""
    found = np.zeros(VOCABULARY, dtype=np.float32)
    found[[3, 4]] = 5.0, 4.0
    chance = np.random.default_rng(0)
    assert Chooser(choice(sample=False), [3], chance).choose(found) == 3
    assert Chooser(choice(sample=False, repetition_penalty=2.0), [3], chance).choose(found) == 4


def test_an_answer_does_not_end_before_its_least_length() -> None:
    """The token that ends an answer is not taken while fewer tokens are written than asked for."""
    found = np.zeros(VOCABULARY, dtype=np.float32)
    found[END] = 9.0
    chooser = Chooser(choice(min_new_tokens=2), [1], np.random.default_rng(0))
    assert [chooser.choose(found) == END for _ in range(3)] == [False, False, True]


def test_penalties_of_presence_and_frequency_count_what_was_written_and_not_the_prompt() -> None:
    """The prompt's tokens are free; each that was written costs once by presence, and each time by frequency."""
    found = np.zeros(VOCABULARY, dtype=np.float32)
    found[[3, 4]] = 1.0, 0.55
    chooser = Chooser(choice(frequency_penalty=0.1, presence_penalty=0.3), [3, 3, 3], np.random.default_rng(0))
    assert [chooser.choose(found) for _ in range(4)] == [3, 3, 4, 3]


def test_a_seed_repeats_its_draws() -> None:
    """Equal seeds draw equal tokens; other seeds others."""

    def drawn(seed: int) -> list[int]:
        chooser = Chooser(choice(sample=True), [1], np.random.default_rng(seed))
        return [chooser.choose(logits(step)) for step in range(20)]

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)


def test_the_checkpoints_own_rules_hold_where_a_request_says_nothing() -> None:
    """A checkpoint that samples does so unless a request says otherwise."""
    own = WritingRules(eos_token_ids=(END,), max_new_tokens=9, sample=True, temperature=0.5, top_k=7, top_p=0.9)
    usual = Choice.of(GenerateParameters(), own)
    assert (usual.sample, usual.temperature, usual.top_k, usual.top_p) == (True, 0.5, 7, 0.9)
    asked = Choice.of(GenerateParameters(sample=False, top_k=0), own)
    assert (asked.sample, asked.top_k) == (False, 0)
