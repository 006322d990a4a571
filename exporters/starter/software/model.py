"""Initialises a BART from a BERT: copies the weights wherever the architectures agree.

A BART encoder layer computes the same as a BERT layer (attention, add, norm, GELU, add, norm), and so does a decoder
layer without its cross-attention. BART has no token types, so BERT's first one is added to the position embeddings,
which in BART begin two rows later.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration, BertConfig

from exporters.starter.vocabulary import SPECIAL, Vocabulary

OFFSET = 2
"""Rows before the first position in BART's table of positions."""
DECODER_LAYERS = (0, 2, 4)
"""The BERT layers that initialise the decoder's layers."""
PARTS = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.out_proj",
    "attention.output.LayerNorm": "self_attn_layer_norm",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "output.LayerNorm": "final_layer_norm",
}
CROSS_PARTS = {there: here.replace("self_attn", "encoder_attn") for there, here in list(PARTS.items())[:4]}
Weights = Mapping[str, torch.Tensor]


def bart_from(base: Path, vocabulary: Vocabulary, seed: int) -> BartForConditionalGeneration:
    """A BART whose encoder equals the BERT in folder `base`; some of its layers initialise the decoder.

    The cross-attention starts as the same BERT layer's self-attention. Raises `KeyError` if the base lacks a tensor.
    """
    bert, source = load_file(base / "model.safetensors"), BertConfig.from_pretrained(base)
    torch.manual_seed(seed)
    model = BartForConditionalGeneration(config_of(source, vocabulary, len(DECODER_LAYERS)))
    words = bert["embeddings.word_embeddings.weight"][list(vocabulary.base_ids)]
    positions = bert["embeddings.position_embeddings.weight"] + bert["embeddings.token_type_embeddings.weight"][0]
    with torch.no_grad():
        model.model.shared.weight.copy_(words)
        for part in (model.model.encoder, model.model.decoder):
            part.embed_positions.weight[OFFSET:] = positions
            part.embed_positions.weight[:OFFSET] = 0
            _fill(part.layernorm_embedding, bert, "embeddings.LayerNorm")
    for at, layer in enumerate(model.model.encoder.layers):
        _fill_layer(layer, bert, at)
    for at, layer in zip(DECODER_LAYERS, model.model.decoder.layers, strict=True):
        _fill_layer(layer, bert, at)
        _fill_layer(layer, bert, at, CROSS_PARTS)
    return model


def config_of(source: BertConfig, vocabulary: Vocabulary, decoder_layers: int) -> BartConfig:
    """A BART config with the BERT's width and depth and the kept pieces; `[CLS]` begins a summary, `[SEP]` ends it."""
    ids = {token: vocabulary.tokens.index(token) for token in SPECIAL.values()}
    start, end = ids[SPECIAL["cls_token"]], ids[SPECIAL["sep_token"]]
    return BartConfig(
        vocab_size=len(vocabulary.tokens),
        d_model=source.hidden_size,
        max_position_embeddings=source.max_position_embeddings,
        encoder_layers=source.num_hidden_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=source.num_attention_heads,
        decoder_attention_heads=source.num_attention_heads,
        encoder_ffn_dim=source.intermediate_size,
        decoder_ffn_dim=source.intermediate_size,
        activation_function="gelu",
        init_std=0.02,
        dropout=0.1,
        attention_dropout=0.0,
        activation_dropout=0.0,
        scale_embedding=False,
        pad_token_id=ids[SPECIAL["pad_token"]],
        bos_token_id=start,
        eos_token_id=end,
        decoder_start_token_id=start,
        forced_eos_token_id=end,
    )


def _fill_layer(layer: nn.Module, bert: Weights, at: int, parts: Mapping[str, str] = PARTS) -> None:
    for there, here in parts.items():
        _fill(layer.get_submodule(here), bert, f"encoder.layer.{at}.{there}")


def _fill(module: nn.Module, bert: Weights, name: str) -> None:
    module.load_state_dict({end: bert[f"{name}.{end}"] for end in ("weight", "bias")})
