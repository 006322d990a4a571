"""A classifier's replica answers each request of a batch by itself, though all their texts may share one run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from batching import PROFILE, SummingEngine
from fakes import EVEN, FakeClock, catalog, manifest
from tokenizers import Tokenizer, models, pre_tokenizers

from deployments.engines.base import Logits, TokenIds
from deployments.replica.classify import ClassifierReplica, LabelScorer, OpenClassifier
from deployments.replica.tokens import INLINE_CHARACTERS
from gateway.model.messages import Answer, Failure, FailureKind, Work
from gateway.tasks.classify import ClassifyParameters, Truncation

WINDOW = 8
WORDS = {"<unk>": 0} | {f"w{at}": at for at in range(1, 30)}


class TokenEngine(SummingEngine):
    """An engine whose first logit is the first token of the text, with an open gate."""

    def run(self, token_ids: TokenIds, mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        """Records the batch and runs it."""
        self.gate.set()
        super().run(token_ids, mask)
        return np.stack([token_ids[:, 0], np.zeros(len(mask))], axis=1).astype(np.float32)


def request(*texts: str, truncation: Truncation = "longest_first", remaining_s: float = 60.0) -> Work:
    """A strict request for the logits of these texts."""
    parameters = ClassifyParameters(function_to_apply="none", truncation=truncation)
    return Work("classify", texts, parameters, remaining_s, True, "r")


async def answered(engine: TokenEngine, *works: Work, clock: FakeClock | None = None) -> Sequence[Answer | Failure]:
    """The results of a batch on a replica of that engine."""
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_truncation(WINDOW)
    scorer = LabelScorer(tokenizer, ("first", "second"), WINDOW)
    opened = OpenClassifier(manifest(EVEN, 0.01), engine, scorer, PROFILE)
    replica = ClassifierReplica(catalog().checkpoints[1], opened, 99, clock or FakeClock())
    replica.start()
    results = await replica.handle(works)
    await replica.stop(60)
    return results


def firsts(result: Answer | Failure) -> list[float]:
    """The first token of each text, by an answer's scores."""
    assert isinstance(result, Answer)
    return [{one.label: one.score for one in output}["first"] for output in result.outputs]


async def test_the_texts_of_a_batch_share_runs_and_each_request_gets_its_own() -> None:
    """All texts of a batch go to the engine together; each request's answer has its own texts, in order."""
    engine = TokenEngine()
    results = await answered(engine, request("w1"), request("w2", "w3", "w2"), request("w4"), request("w1"))
    assert [firsts(result) for result in results] == [[1], [2, 3, 2], [4], [1]]
    assert [[ids[0] for ids in run] for run in engine.batches] == [[1, 2, 3, 4, 1]]
    answers = [result for result in results if isinstance(result, Answer)]
    assert [answer.timings.batch_size for answer in answers] == [5] * 4
    assert [answer.input.tokens for answer in answers] == [1, 3, 1, 1]


async def test_a_request_that_cannot_be_read_fails_alone() -> None:
    """A request with a text over the window fails alone as TOO_LONG, and none of its texts runs."""
    engine, long = TokenEngine(), " ".join(["w5"] * (WINDOW + 1))
    results = await answered(engine, request("w1"), request("w6", long, truncation="error"), request(long))
    assert results[1] == Failure(FailureKind.TOO_LONG, "over the checkpoint's window", WINDOW + 1, WINDOW, index=1)
    assert (firsts(results[0]), firsts(results[2])) == ([1], [5])
    assert sorted(ids[0] for run in engine.batches for ids in run) == [1, 5]


async def test_a_batch_that_cannot_be_read_runs_nothing() -> None:
    """A batch whose requests all fail before the engine ends with their failures, and the engine runs nothing."""
    engine, long = TokenEngine(), " ".join(["w5"] * (WINDOW + 1))
    results = await answered(engine, *[request(long, truncation="error")] * 2)
    assert [one.kind for one in results if isinstance(one, Failure)] == [FailureKind.TOO_LONG] * 2
    assert engine.batches == []


async def test_a_request_that_expires_leaves_the_others_of_its_batch_alone() -> None:
    """A strict request that cannot be in time is EXPIRED, and the others of its batch are answered."""
    engine = TokenEngine()
    results = await answered(engine, request("w1"), request("w2", "w3", remaining_s=0.005), request("w4"))
    assert results[1] == Failure(FailureKind.EXPIRED)
    assert (firsts(results[0]), firsts(results[2])) == ([1], [4])


@pytest.mark.parametrize("characters", [INLINE_CHARACTERS, INLINE_CHARACTERS + 1])
async def test_a_long_batch_is_read_off_the_loop_with_the_same_answers(characters: int) -> None:
    """A batch of more than `INLINE_CHARACTERS` is tokenised on a thread, so the loop goes on, and answered alike."""
    engine, loop = TokenEngine(), asyncio.get_running_loop()
    filler = "w7" + " " * (characters - 4)
    before = getattr(loop, "_default_executor", None)
    results = await answered(engine, request("w1"), request(filler))
    assert [firsts(result) for result in results] == [[1], [7]]
    assert (getattr(loop, "_default_executor", None) is before) == (characters <= INLINE_CHARACTERS)


async def test_a_request_that_breaks_the_reading_fails_alone() -> None:
    """A request whose parameters are another task's fails alone as ENGINE; the others of its batch are answered."""
    broken = Work("classify", ("w2",), "no parameters", 1.0, True, "r")
    results = await answered(TokenEngine(), request("w1"), broken, request("w4"))
    assert isinstance(results[1], Failure) and results[1].kind is FailureKind.ENGINE
    assert (firsts(results[0]), firsts(results[2])) == ([1], [4])


def pair(text: str, other: str, truncation: Truncation = "longest_first") -> Work:
    """A request for the logits of one pair of texts."""
    parameters = ClassifyParameters(function_to_apply="none", truncation=truncation, second_at=(len(text),))
    return Work("classify", (text + other,), parameters, 60.0, True, "r")


async def test_pairs_and_single_texts_do_not_share_a_run() -> None:
    """Pairs run together and single texts run together, however they came; each request gets its own answers."""
    engine = TokenEngine()
    results = await answered(engine, pair("w1", "w2"), request("w3", "w4"), pair("w5", "w6"))
    assert [firsts(result) for result in results] == [[1], [3, 4], [5]]
    assert sorted(engine.batches) == [[[1, 2], [5, 6]], [[3], [4]]]


async def test_of_a_long_pair_the_longer_text_is_cut() -> None:
    """A pair over the window loses tokens of its longer text; its whole length is told, and may be refused."""
    engine, long = TokenEngine(), " ".join(f"w{at}" for at in range(1, 21))
    results = await answered(
        engine, pair(long, "w21 w22"), pair("w21 w22", long), pair("w21", long, truncation="error")
    )
    assert engine.batches == [[[1, 2, 3, 4, 5, 6, 21, 22], [21, 22, 1, 2, 3, 4, 5, 6]]]
    assert [one.input.tokens for one in results if isinstance(one, Answer)] == [22, 22]
    assert results[2] == Failure(FailureKind.TOO_LONG, "over the checkpoint's window", 21, WINDOW, index=0)
