"""Laws of decoder-only graphs in ONNX Runtime, on real architectures: they write what the model writes."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from optimum.exporters.onnx import onnx_export_from_model
from small_causal import (
    CAUSAL_FAMILIES,
    END,
    TorchWriting,
    generated,
    ids_of,
    prompts,
    small_causal,
)
from transformers import PreTrainedModel

from deployments.engines.base import ONNX_FILE, CausalEngine, Pending, TokenIds
from deployments.engines.onnx_causal import SCORED_FROM, OnnxCausal, OnnxWriting
from deployments.engines.opening import open_causal_engine
from exporters.export import quiet_libraries
from exporters.kinds.graphs import export_causal_graph

pytestmark = pytest.mark.export

MOST = 24

Exported = dict[str, tuple[PreTrainedModel, Path]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A tiny model of each family with the folder of its fp32 graph."""
    root = tmp_path_factory.mktemp("graphs")
    made = {}
    for family in CAUSAL_FAMILIES:
        with quiet_libraries():
            export_causal_graph(small_causal(family), root / family)
        made[family] = small_causal(family), root / family
    return made


def written(engine: CausalEngine, ids: TokenIds, most: int = MOST) -> tuple[int, ...]:
    """What the engine writes greedily after a prompt, its end token too."""
    decoder, row, found = engine.encode(ids[:-1]), np.zeros(1, dtype=np.int64), list[int]()
    token = int(ids[-1])
    while len(found) < most and END not in found:
        token = int(decoder.step(np.asarray([token]), row)[0].argmax())
        found.append(token)
    return tuple(found)


def pending(tokens: list[int]) -> list[Pending]:
    """The next step of texts of one row each."""
    return [(np.asarray([token]), np.zeros(1, dtype=np.int64)) for token in tokens]


@pytest.mark.parametrize("family", CAUSAL_FAMILIES)
def test_a_graph_writes_what_generate_writes(exported: Exported, family: str) -> None:
    """The graph writes the tokens of `generate`, for prompts of any length, one after another on one engine."""
    model, folder = exported[family]
    engine = open_causal_engine("onnx", folder, 1)
    asked = [ids_of(text) for text in (*prompts(6), "a")]  # the last has one token: nothing to read before it
    assert len({len(ids) for ids in asked}) > 4
    found = [written(engine, ids) for ids in asked]
    assert found == [generated(model, ids.tolist(), MOST) for ids in asked]
    assert len({token for row in found for token in row}) > 10


@pytest.mark.parametrize("family", CAUSAL_FAMILIES)
def test_rows_follow_their_origins(exported: Exported, family: str) -> None:
    """The logits of each row are the model's own, whatever rows fork, end or swap.

    Two prompts at once do not affect each other.
    """
    model, folder = exported[family]
    engine = OnnxCausal.open(folder, 1)
    steps = [([5], [0]), ([6, 7, 8], [0, 0, 0]), ([9, 4, 9], [2, 0, 1]), ([4, 4, 5, 6], [0, 0, 2, 1]), ([8, 3], [3, 1])]
    pairs = [
        (engine.encode(ids), TorchWriting(model, ids)) for ids in map(ids_of, ("the river", "a bridge was closed"))
    ]
    for tokens, origins in steps:
        for ours, theirs in pairs:
            given = np.array(tokens), np.array(origins)
            np.testing.assert_allclose(ours.step(*given), theirs.step(*given), atol=5e-3)  # a wrong row is off by 1


@pytest.mark.parametrize("family", CAUSAL_FAMILIES)
def test_every_token_of_a_text_is_scored_at_once(exported: Exported, family: str) -> None:
    """The logits after each token of a text are the model's own, up to the whole window."""
    model, folder = exported[family]
    engine = OnnxCausal.open(folder, 1)
    for ids in (ids_of("a"), ids_of("seven hundred"), np.resize(ids_of("the river rose"), 90)):
        with torch.inference_mode():
            meant = model(input_ids=torch.from_numpy(ids)[None]).logits[0].numpy()
        np.testing.assert_allclose(engine.score(ids), meant, atol=5e-3)


@pytest.mark.parametrize("family", CAUSAL_FAMILIES)
def test_every_matrix_of_a_graph_can_be_quantised(exported: Exported, family: str) -> None:
    """No product of a graph has its matrix beside a bias, and logits are computed from where it is asked for."""
    graph = onnx.load(str(exported[family][1] / ONNX_FILE)).graph
    weights = {one.name for one in graph.initializer}
    products = [node.op_type for node in graph.node if len(node.input) > 1 and node.input[1] in weights]
    assert "Gemm" not in products and products.count("MatMul") > 8
    assert SCORED_FROM in {one.name for one in graph.input}


def test_threads_share_an_engine(exported: Exported) -> None:
    """Prompts that are written on from several threads at once get what they get alone."""
    engine = OnnxCausal.open(exported["llama"][1], 1)
    asked = [ids_of(text) for text in prompts(6)]
    alone = [written(engine, ids) for ids in asked]
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(lambda ids: written(engine, ids), asked)) == alone


def test_a_first_step_of_several_rows_is_refused(exported: Exported) -> None:
    """A first step with several rows is refused, since there is only row 0 to continue."""
    decoder = OnnxCausal.open(exported["gpt2"][1], 1).encode(ids_of("the"))
    with pytest.raises(ValueError, match="2 rows"):
        decoder.step(np.array([4, 5]), np.array([0, 0]))


def test_graphs_of_another_form_are_refused_as_they_are_opened(exported: Exported, tmp_path: Path) -> None:
    """A graph without past, with keys of another shape, or without an output is refused by name."""
    with quiet_libraries():
        onnx_export_from_model(small_causal("gpt2"), output=tmp_path / "pastless", task="text-generation")
    with pytest.raises(ValueError, match="takes no keys and values"):
        OnnxCausal.open(tmp_path / "pastless", 1)
    graph = onnx.load(str(exported["gpt2"][1] / ONNX_FILE))
    (tmp_path / "poor").mkdir()
    last = graph.graph.output.pop()
    onnx.save(graph, str(tmp_path / "poor" / ONNX_FILE))
    with pytest.raises(ValueError, match=f"does not give {last.name}"):
        OnnxCausal.open(tmp_path / "poor", 1)
    graph.graph.output.append(last)
    keys = next(one for one in graph.graph.input if one.name.startswith("past_key_values"))
    keys.type.tensor_type.shape.dim[1].ClearField("dim_value")
    keys.type.tensor_type.shape.dim[1].dim_param = "heads"
    onnx.save(graph, str(tmp_path / "poor" / ONNX_FILE))
    with pytest.raises(ValueError, match=f"takes {keys.name} as"):
        OnnxCausal.open(tmp_path / "poor", 1)


def test_an_engine_of_another_name_is_refused(tmp_path: Path) -> None:
    """Only ONNX Runtime writes on."""
    with pytest.raises(ValueError, match="torch"):
        open_causal_engine("torch", tmp_path, 1)


@pytest.mark.parametrize("family", CAUSAL_FAMILIES)
def test_prompts_that_step_together_are_written_as_alone(exported: Exported, family: str) -> None:
    """Prompts of unlike lengths write what `generate` writes, whoever joins, leaves or steps alone in between."""
    model, folder = exported[family]
    engine, chance = OnnxCausal.open(folder, 1), np.random.default_rng(5)
    asked = [ids_of(text) for text in (*prompts(7), "a")]
    assert len({len(ids) for ids in asked}) > 4
    decoders = [engine.encode(ids[:-1]) for ids in asked]
    found: list[list[int]] = [[] for _ in asked]
    going_on: set[int] = set()
    waiting = list(range(len(asked)))
    while going_on or waiting:
        if waiting and (not going_on or chance.random() < 0.3):
            at = waiting.pop()
            logits = decoders[at].step(asked[at][-1:], np.zeros(1, dtype=np.int64))
            stepping = [at]
            going_on.add(at)
        else:
            number = int(chance.integers(1, len(going_on) + 1))
            order = chance.permutation(sorted(going_on)) if chance.random() < 0.3 else np.asarray(sorted(going_on))
            stepping = [int(one) for one in order[: len(order) if chance.random() < 0.5 else number]]
            last = [found[at][-1] for at in stepping]
            if len(stepping) == 1 and chance.random() < 0.5:
                logits = decoders[stepping[0]].step(np.asarray(last), np.zeros(1, dtype=np.int64))
            else:
                logits = np.concatenate(engine.step_together([decoders[at] for at in stepping], pending(last)))
        for at, row in zip(stepping, logits, strict=True):
            found[at].append(int(row.argmax()))
            if found[at][-1] == END or len(found[at]) == MOST:
                going_on.discard(at)
    assert [tuple(one) for one in found] == [generated(model, ids.tolist(), MOST) for ids in asked]


def test_a_past_goes_with_the_last_that_has_it(exported: Exported) -> None:
    """What prompts shared is freed when they are, without a collection; who goes on alone keeps no other's."""
    _, folder = next(iter(exported.values()))
    engine = OnnxCausal.open(folder, 1)
    decoders: list[OnnxWriting] = []
    for text in prompts(3):
        ids = ids_of(text)
        decoders.append(engine.encode(ids[:-1]))
        decoders[-1].step(ids[-1:], np.zeros(1, dtype=np.int64))
    engine.step_together(decoders, pending([5, 6, 7]))
    assert decoders[0].shared is not None
    shared = weakref.ref(next(iter(decoders[0].shared.past.values())))
    decoders[0].step(np.asarray([8]), np.zeros(1, dtype=np.int64))
    gc.disable()
    try:
        assert shared() is not None
        del decoders[1:]
        assert shared() is None
    finally:
        gc.enable()
