"""Equal texts of one request get equal answers, whatever else is in their batches."""

from __future__ import annotations

import asyncio

import numpy as np
from fakes import EVEN, FakeClock, catalog, latency_profile, manifest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from deployments.engines.base import Logits, TokenIds
from deployments.replica.classify import ClassifierReplica, LabelScorer, OpenClassifier
from gateway.model.messages import Answer, Work
from gateway.tasks.classify import ClassifyParameters

WORDS = {f"w{at}": at for at in range(6)}


class BatchDependent:
    """An engine whose answers depend on a row's place and on its batch, as dynamic int8 does but more so."""

    def __init__(self) -> None:
        self.rows = 0

    def run(self, token_ids: TokenIds, attention_mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        """Answer a row by its token, by its place and by how many rows came before."""
        places = np.arange(len(token_ids)) + self.rows
        self.rows += len(token_ids)
        return np.stack([token_ids[:, 0] * 1000.0, places + token_ids.sum()], axis=1).astype(np.float32)


async def answered(texts: list[str], engine: BatchDependent) -> Answer:
    """The answer of a classifier's replica to one request."""
    scorer = LabelScorer(Tokenizer(models.WordLevel(WORDS, unk_token="w0")), ("first", "second"), 64)
    opened = OpenClassifier(manifest(EVEN, 0.01), engine, scorer, latency_profile(0.01))
    replica = ClassifierReplica(catalog().checkpoints[1], opened, 99, FakeClock())
    replica.start()
    parameters = ClassifyParameters(function_to_apply="none")
    (answer,) = await replica.handle([Work("classify", tuple(texts), parameters, 60.0, False, "r")])
    await replica.stop(60)
    assert isinstance(answer, Answer)
    return answer


@given(st.lists(st.sampled_from(sorted(WORDS)), min_size=1, max_size=40))
def test_equal_texts_of_a_request_get_equal_answers(texts: list[str]) -> None:
    """Equal texts get one answer, unequal ones their own in the order asked, and the report counts every text."""
    engine = BatchDependent()
    answer = asyncio.run(answered(texts, engine))
    assert len(answer.outputs) == len(texts)
    first = {text: answer.outputs[texts.index(text)] for text in texts}
    assert list(answer.outputs) == [first[text] for text in texts]
    scores = [{one.label: one.score for one in output} for output in answer.outputs]
    assert [one["first"] for one in scores] == [WORDS[text] * 1000.0 for text in texts]
    assert engine.rows == len(set(texts)) and answer.input.tokens == len(texts)
