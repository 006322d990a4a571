"""Golden inputs: a few texts with the answers of the verified variant, for every replica to repeat before it serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from deployments.engines.base import Engine, Seq2SeqEngine, padded
from deployments.replica.summarize.beam_search import source_ids, write_golden
from deployments.replica.tokens import TextTokens
from exporters.texts import SummarySet
from gateway.model.manifest import GenerationRules, GoldenInput, GoldenSummary, SelfTest

ODD = "na\u00efve \u2014 caf\u00e9 \U0001f600 \u4f60\u597d\tend\x00."
TOLERANCE = 0.05
QUARTILES = 4

Encode = Callable[[str], list[int]]


def record_self_test(engine: Engine, encode: Encode, window: int, texts: Sequence[str]) -> SelfTest:
    """The answers to texts from the shortest to one past the window, each run alone, which is deterministic.

    The tolerance is 5 % of the largest logit: another processor of the same features rounds otherwise, but a wrong
    kernel, graph or tokenizer is far further off.
    """
    golden = tuple(_golden(engine, encode, text) for text in golden_texts(texts, window))
    scale = max(abs(value) for one in golden for value in one.logits)
    return SelfTest(tolerance=TOLERANCE * max(scale, 1e-3), golden=golden)


def golden_texts(texts: Sequence[str], window: int) -> list[str]:
    """The texts at the quartiles of length, one of odd characters, and one that is cut at the window."""
    by_length = _by_length(texts)
    quartiles = [by_length[(len(by_length) - 1) * q // QUARTILES] for q in range(QUARTILES + 1)]
    longest = by_length[-1]
    return [*dict.fromkeys(quartiles), ODD, " ".join([longest] * (1 + window // len(longest.split())))]


def record_writing(
    engine: Seq2SeqEngine, tokens: TextTokens, texts: SummarySet, rules: GenerationRules, window: int, pad_id: int
) -> tuple[GoldenSummary, ...]:
    """What is written to the text of median length, the shortest, and the median with odd characters in front.

    Each alone, which is deterministic. No long text: every start of every replica reads them all.
    """
    by_length = _by_length([one.text for one in texts.texts])
    median = by_length[len(by_length) // 2]
    golden = []
    for text in dict.fromkeys((median, by_length[0], f"{ODD} {median}")):
        ids = source_ids(tokens, text, rules.prefix, window)
        written = write_golden(engine, ids, rules, pad_id)
        golden.append(GoldenSummary(text=text, token_ids=tuple(ids), written=written))
    return tuple(golden)


def _by_length(texts: Sequence[str]) -> list[str]:
    return sorted({text for text in texts if text.strip()} or {ODD}, key=lambda text: (len(text), text))


def _golden(engine: Engine, encode: Encode, text: str) -> GoldenInput:
    ids = encode(text)
    batch = padded([ids], pad_id=0)
    logits = engine.run(batch.token_ids, batch.attention_mask)[0]
    return GoldenInput(text=text, token_ids=tuple(ids), logits=tuple(logits.tolist()))
