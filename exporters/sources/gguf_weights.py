"""Writes the weights of a GGUF file as safetensors, under the names that transformers has for them.

GGUF keeps matrices in blocks of few bits, which the public reader turns back into floats. Llama's queries and keys are
kept in another order of rows, since llama.cpp rotates neighbours and transformers halves.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from gguf import GGUFReader
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float32]

ARCHITECTURE = "llama"

OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
"""The names of what is not in a layer. A file without `output.weight` ties its head to the embeddings."""

LAYER = "blk"
IN_LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
ROTATED = {"attn_q.weight": "attention.head_count", "attn_k.weight": "attention.head_count_kv"}
"""The matrices that are rotated, and the fields that say how many heads they have."""


def of_gguf_llama(file: Path, out: Path) -> None:
    """Writes the weights of a Llama as fp32. Nothing is lost: they are the numbers that the file stands for.

    Raises ValueError for another architecture, or a tensor that no Llama has.
    """
    from gguf import GGUFReader, dequantize  # part of the export extra
    from safetensors.numpy import save_file

    reader = GGUFReader(file)
    found = field_of(reader, "general.architecture")
    if found != ARCHITECTURE:
        raise ValueError(f"{file.name} holds a {found} and no {ARCHITECTURE}")
    weights: dict[str, Floats] = {}
    for tensor in reader.tensors:
        kept = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        part = tensor.name.partition(f"{LAYER}.")[2].partition(".")[2]
        if part in ROTATED:
            kept = in_halves(kept, int(str(field_of(reader, f"{ARCHITECTURE}.{ROTATED[part]}"))))
        weights[_name_of(tensor.name, file.name)] = np.ascontiguousarray(kept)
    save_file(weights, out, metadata={"format": "pt"})


def field_of(reader: GGUFReader, name: str) -> object:
    """A field of the file's head. Raises ValueError if there is none."""
    field = reader.get_field(name)
    if field is None:
        raise ValueError(f"the GGUF file has no field {name}")
    value: object = field.contents()
    return value


def in_halves(matrix: Floats, heads: int) -> Floats:
    """Reorders the rows of each head from pairs of neighbours to a first half and a second."""
    rows, columns = matrix.shape
    pairs = matrix.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _name_of(name: str, file: str) -> str:
    """The name of a tensor in transformers. Raises ValueError for one that no Llama has."""
    layer, _, part = name.removeprefix(f"{LAYER}.").partition(".")
    if name in OUTSIDE:
        return OUTSIDE[name]
    if name.startswith(f"{LAYER}.") and part in IN_LAYER:
        return f"model.layers.{layer}.{IN_LAYER[part]}"
    raise ValueError(f"{file} has a tensor {name}, which is not known")
