"""Golden inputs: a few texts with the answers of the verified variant, for every replica to repeat before it serves."""

from __future__ import annotations

from deployments.engines.padding import padded
from deployments.engines.port import Engine
from deployments.tasks import ClassifyTask, Encoded
from exporters.texts import VerificationSet
from gateway.manifest import GoldenInput, SelfTest

ODD = "na\u00efve \u2014 caf\u00e9 \U0001f600 \u4f60\u597d\tend\x00."
TOLERANCE = 0.05
QUARTILES = 4


def record_self_test(engine: Engine, task: ClassifyTask, texts: VerificationSet) -> SelfTest:
    """The answers to texts from the shortest to one past the window, each run alone, which is deterministic.

    The tolerance is 5 % of the largest logit: another processor of the same features rounds otherwise, but a wrong
    kernel, graph or tokenizer is far further off.
    """
    golden = tuple(_golden(engine, task, text) for text in golden_texts(texts, task.window))
    scale = max(abs(value) for one in golden for value in one.logits)
    return SelfTest(tolerance=TOLERANCE * max(scale, 1e-3), golden=golden)


def golden_texts(texts: VerificationSet, window: int) -> list[str]:
    """The texts at the quartiles of length, one of odd characters, and one that is cut at the window."""
    by_length = sorted({t.text for t in texts.texts if t.text.strip()} or {ODD}, key=lambda text: (len(text), text))
    quartiles = [by_length[(len(by_length) - 1) * q // QUARTILES] for q in range(QUARTILES + 1)]
    longest = by_length[-1]
    return [*dict.fromkeys(quartiles), ODD, " ".join([longest] * (1 + window // len(longest.split())))]


def _golden(engine: Engine, task: ClassifyTask, text: str) -> GoldenInput:
    encoded = task.encode(text, "longest_first")
    assert isinstance(encoded, Encoded), "only truncation='error' gives a failure"
    batch = padded([encoded.token_ids], task.pad_id)
    logits = engine.run(batch.token_ids, batch.attention_mask)[0]
    return GoldenInput(text=text, token_ids=tuple(encoded.token_ids), logits=tuple(logits.tolist()))
