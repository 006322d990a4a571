"""Laws of an embedder's replica: what it gives as vectors, and what it compares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fake_embedders import DIMENSIONS, PROMPTS, WINDOW, SummingEngine, replica

from gateway.model.messages import Answer, Failure, FailureKind, Parameters, Work
from gateway.tasks.embed import EmbedParameters, Side
from gateway.tasks.similarity import SimilarityParameters

LONG = " ".join(["cat", "dog", "sun"] * WINDOW)


def embed(*texts: str, parameters: EmbedParameters | None = None) -> Work:
    """Work of `/embed`."""
    return Work("embed", texts, parameters or EmbedParameters(), 60.0, False, "r")


def compare(*texts: str, parameters: Parameters | None = None) -> Work:
    """Work of `/similarity`: the first text with the others."""
    return Work("similarity", texts, parameters or SimilarityParameters(), 60.0, False, "r")


async def results(
    folder: Path, *batch: Work, engine: SummingEngine | None = None, normalized: bool = True, prompted: bool = False
) -> Sequence[Answer | Failure]:
    """What a replica answers to one batch."""
    made = replica(folder, engine or SummingEngine(), normalized=normalized, prompts=PROMPTS if prompted else None)
    made.start()
    try:
        return await made.handle(batch)
    finally:
        await made.stop(60)


async def answered(folder: Path, work: Work, *, normalized: bool = True, prompted: bool = False) -> Answer:
    """The answer to one request alone."""
    (answer,) = await results(folder, work, normalized=normalized, prompted=prompted)
    assert isinstance(answer, Answer)
    return answer


async def test_a_text_gets_one_vector_of_the_checkpoint_s_dimensions(tmp_path: Path) -> None:
    """Each text gets a vector, in the order asked; equal texts get equal vectors, and unequal ones unequal."""
    answer = await answered(tmp_path, embed("cat dog", "sea", "cat dog"))
    assert [len(vector) for vector in answer.outputs] == [DIMENSIONS] * 3
    assert answer.outputs[0] == answer.outputs[2] != answer.outputs[1]
    assert (answer.input.tokens, answer.input.kept, answer.input.truncated) == (11, 11, False)


@pytest.mark.parametrize("normalized", [True, False])
async def test_the_request_decides_the_length_else_the_checkpoint(tmp_path: Path, normalized: bool) -> None:
    """`normalize` decides whether vectors have length 1; where it is absent, the checkpoint's configuration does."""
    lengths = {}
    for asked in (None, True, False):
        answer = await answered(tmp_path, embed("cat", parameters=EmbedParameters(asked)), normalized=normalized)
        lengths[asked] = float(np.linalg.norm(answer.outputs[0]))
    assert lengths[True] == pytest.approx(1, abs=1e-6) and lengths[False] != pytest.approx(1, abs=1e-3)
    assert lengths[None] == lengths[normalized]


@pytest.mark.parametrize("side", ["left", "right"])
async def test_a_long_text_is_cut_on_the_side_that_was_asked_for(tmp_path: Path, side: Side) -> None:
    """A text over the window keeps its head or its tail, and the answer says that it was cut."""
    kept = "cat dog sun cat dog sun"
    text = f"{kept} sea" if side == "right" else f"sea {kept}"
    cut = await answered(tmp_path, embed(text, parameters=EmbedParameters(cut=side)))
    assert cut.input.truncated and (cut.input.tokens, cut.input.kept) == (WINDOW + 1, WINDOW)
    assert cut.outputs == (await answered(tmp_path, embed(kept))).outputs


@pytest.mark.parametrize("work", [
    embed(LONG, parameters=EmbedParameters(truncate=False)),
    compare("cat", LONG, parameters=SimilarityParameters(truncate=False)),
])  # fmt: skip
async def test_without_truncation_a_long_text_is_refused_and_nothing_else(tmp_path: Path, work: Work) -> None:
    """`truncate` false refuses a text over the window, with both figures; its batch is answered."""
    refused, other = await results(tmp_path, work, embed("cat"))
    assert isinstance(refused, Failure) and refused.kind is FailureKind.TOO_LONG
    assert (refused.tokens, refused.limit) == (3 * WINDOW + 2, WINDOW) and isinstance(other, Answer)


async def test_a_prompt_is_put_before_each_text(tmp_path: Path) -> None:
    """The prompt of that name goes before the text; without a name the text is taken as it is."""
    named = await answered(tmp_path, embed("cat", parameters=EmbedParameters(prompt_name="query")), prompted=True)
    assert named.outputs == (await answered(tmp_path, embed("query: cat"))).outputs
    plain = await answered(tmp_path, embed("cat"), prompted=True)
    assert plain.outputs == (await answered(tmp_path, embed("cat"))).outputs != named.outputs


@pytest.mark.parametrize("normalized", [True, False])
async def test_similarity_is_the_cosine_of_the_vectors(tmp_path: Path, normalized: bool) -> None:
    """`/similarity` gives one cosine for each text but the first, that of the vectors that `/embed` gives."""
    texts = ("cat dog", "cat sun", "sea", "cat dog")
    scores = (await answered(tmp_path, compare(*texts), normalized=normalized)).outputs
    vectors = np.asarray((await answered(tmp_path, embed(*texts), normalized=True)).outputs)
    assert scores == pytest.approx(list(vectors[1:] @ vectors[0]), abs=1e-6) and scores[2] == 1.0


async def test_requests_of_both_tasks_share_a_batch(tmp_path: Path) -> None:
    """One run of the engine answers requests of both tasks, each as alone."""
    engine = SummingEngine()
    together = await results(tmp_path, embed("cat dog"), compare("sea", "sun red"), engine=engine)
    assert len(engine.shapes) == 1
    alone = [await answered(tmp_path, embed("cat dog")), await answered(tmp_path, compare("sea", "sun red"))]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Answer)
        assert np.asarray(one.outputs) == pytest.approx(np.asarray(other.outputs), abs=1e-6)
