"""Laws of weights in llama.cpp's form: they become those of transformers' Llama, by name and by order of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, quantize
from numpy.typing import NDArray
from safetensors.numpy import load_file

from exporters.sources.gguf_weights import of_gguf_llama

HEADS, KEY_HEADS, WIDTH, EACH = 4, 2, 32, 8
SHAPES = {
    "token_embd.weight": (40, WIDTH),
    "output_norm.weight": (WIDTH,),
    "blk.0.attn_norm.weight": (WIDTH,),
    "blk.0.attn_q.weight": (HEADS * EACH, WIDTH),
    "blk.0.attn_k.weight": (KEY_HEADS * EACH, WIDTH),
    "blk.0.attn_v.weight": (KEY_HEADS * EACH, WIDTH),
    "blk.0.attn_output.weight": (WIDTH, HEADS * EACH),
    "blk.0.ffn_norm.weight": (WIDTH,),
    "blk.0.ffn_gate.weight": (64, WIDTH),
    "blk.0.ffn_up.weight": (64, WIDTH),
    "blk.0.ffn_down.weight": (WIDTH, 64),
}
IN_TRANSFORMERS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "blk.0.attn_norm.weight": "model.layers.0.input_layernorm.weight",
    "blk.0.attn_v.weight": "model.layers.0.self_attn.v_proj.weight",
    "blk.0.attn_output.weight": "model.layers.0.self_attn.o_proj.weight",
    "blk.0.ffn_norm.weight": "model.layers.0.post_attention_layernorm.weight",
    "blk.0.ffn_gate.weight": "model.layers.0.mlp.gate_proj.weight",
    "blk.0.ffn_up.weight": "model.layers.0.mlp.up_proj.weight",
    "blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj.weight",
}


def drawn() -> dict[str, NDArray[np.float32]]:
    """A weight of each shape."""
    chance = np.random.default_rng(3)
    return {name: chance.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def written(
    file: Path, weights: dict[str, NDArray[np.float32]], architecture: str = "llama", packed: tuple[str, ...] = ()
) -> Path:
    """A GGUF file with these weights, of which some are packed in 4 bits."""
    writer = GGUFWriter(file, architecture)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    for name, weight in weights.items():
        if name in packed:
            kind = GGMLQuantizationType.Q4_1
            writer.add_tensor(name, quantize(weight, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def rotated(pairs: NDArray[Any], angles: NDArray[Any]) -> NDArray[Any]:
    """Turn pairs (..., 2) by angles, as both conventions do with their own pairs."""
    cosine, sine = np.cos(angles), np.sin(angles)
    first, second = pairs[..., 0], pairs[..., 1]
    return np.stack([first * cosine - second * sine, first * sine + second * cosine], axis=-1)


def test_every_weight_has_its_name(tmp_path: Path) -> None:
    """Each tensor is found by the name that transformers has for it, equal to the last bit where it is in floats."""
    weights = drawn()
    of_gguf_llama(written(tmp_path / "tiny.gguf", weights), tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    for name, known in IN_TRANSFORMERS.items():
        np.testing.assert_array_equal(found[known], weights[name])
    assert len(found) == len(weights)


@pytest.mark.parametrize(("name", "known", "heads"), [("q", "q_proj", HEADS), ("k", "k_proj", KEY_HEADS)])
def test_rows_turn_as_they_did(tmp_path: Path, name: str, known: str, heads: int) -> None:
    """Rotating a head's halves after the conversion gives what rotating its neighbours gave before."""
    weights = drawn()
    of_gguf_llama(written(tmp_path / "tiny.gguf", weights), tmp_path / "out.safetensors")
    given = np.random.default_rng(5).normal(size=WIDTH)
    before = (weights[f"blk.0.attn_{name}.weight"] @ given).reshape(heads, EACH // 2, 2)
    angles = np.arange(EACH // 2) * 0.7
    neighbours = rotated(before, angles)
    matrix = load_file(tmp_path / "out.safetensors")[f"model.layers.0.self_attn.{known}.weight"]
    halves = rotated((matrix @ given).reshape(heads, 2, EACH // 2).swapaxes(1, 2), angles)
    np.testing.assert_allclose(halves, neighbours, rtol=1e-6)


def test_few_bits_become_the_numbers_that_they_stand_for(tmp_path: Path) -> None:
    """A matrix in blocks of 4 bits becomes floats, off by no more than half a step of its block."""
    weights = drawn()
    name = "blk.0.ffn_gate.weight"
    of_gguf_llama(written(tmp_path / "tiny.gguf", weights, packed=(name,)), tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")[IN_TRANSFORMERS[name]]
    step = np.ptp(weights[name], axis=1, keepdims=True) / 15  # a row is one block
    assert (np.abs(found - weights[name]) <= 0.51 * step).all() and not np.array_equal(found, weights[name])


def test_what_no_llama_has_is_refused(tmp_path: Path) -> None:
    """Another architecture and an unknown tensor are refused by name, rather than left out."""
    with pytest.raises(ValueError, match="holds a gpt2 and no llama"):
        of_gguf_llama(written(tmp_path / "other.gguf", drawn(), "gpt2"), tmp_path / "out.safetensors")
    odd = drawn() | {"blk.0.attn_q_norm.weight": np.ones(EACH, dtype=np.float32)}
    with pytest.raises(ValueError, match=r"blk\.0\.attn_q_norm\.weight, which is not known"):
        of_gguf_llama(written(tmp_path / "odd.gguf", odd), tmp_path / "out.safetensors")
