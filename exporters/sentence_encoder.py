"""An encoder of sentences as its makers run it, and as one ONNX graph: a transformer with a masked mean over tokens.

Importing this module costs seconds and hundreds of MB (torch, transformers): only an export does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerFast

from deployments.engines.base import Logits, padded
from deployments.engines.onnx import ATTENTION_MASK, INPUT_IDS, LOGITS
from exporters.errors import ExportFailed, SourceRefused
from exporters.original import load_model, load_tokenizer, pad_id_of, save_tokenizer, window_of
from exporters.source import SourceFolder

UNUSED_HEADS = ("pooler.",)
OPSET = 17


class MeanOfTokens(torch.nn.Module):
    """A transformer's outputs, averaged over the tokens that the mask lets through."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Vectors (sentences, dimensions) of token ids and mask, both (sentences, tokens)."""
        hidden: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(dim=1) / mask.sum(dim=1)


@dataclass(frozen=True)
class SentenceEncoder:
    """A loaded encoder: its model in fp32, its fast tokenizer, the tokens one sentence may have."""

    pooled: MeanOfTokens
    tokenizer: PreTrainedTokenizerFast
    window: int
    pad_id: int

    @property
    def dimensions(self) -> int:
        """Of a sentence's vector."""
        return int(self.pooled.model.config.hidden_size)

    def encode(self, text: str) -> list[int]:
        """Token ids by the checkpoint's own tokenizer, cut at the window."""
        ids: list[int] = self.tokenizer(text, truncation=True, max_length=self.window)["input_ids"]
        return ids

    def run(self, rows: list[list[int]]) -> Logits:
        """Vectors (rows, dimensions) of a batch padded to its longest row."""
        batch = padded(rows, self.pad_id)
        with torch.inference_mode():
            said = self.pooled(torch.from_numpy(batch.token_ids), torch.from_numpy(batch.attention_mask))
        vectors: Logits = said.numpy()
        return vectors

    def save_tokenizer(self, folder: Path) -> None:
        """Writes tokenizer.json as transformers uses it."""
        save_tokenizer(self.tokenizer, folder)


def load_sentence_encoder(source: SourceFolder, layer: int | None, max_tokens: int) -> SentenceEncoder:
    """Loads the encoder that a ranker's checkpoint has or refers to, up to a layer (from 1; None: the last).

    Raises SourceRefused.
    """
    at = SourceFolder(source.encoder, source.location, source.revision, source.sha256, source.encoder)
    tokenizer = load_tokenizer(at)
    model = load_model(at, AutoModel, "an encoder", UNUSED_HEADS)
    if layer is not None:
        _cut(model, layer, source.location)
    window = min(max_tokens, window_of(model, tokenizer))
    return SentenceEncoder(MeanOfTokens(model), tokenizer, window, pad_id_of(tokenizer))


def export_encoder(encoder: SentenceEncoder, file: Path) -> None:
    """Writes the graph: token ids and mask in, vectors out, every axis of sentences and tokens left open.

    Raises ExportFailed.
    """
    model = encoder.pooled.model
    model.set_attn_implementation("eager")  # the one that every opset can say
    sample = torch.ones(2, 8, dtype=torch.int64)
    axes = {0: "batch", 1: "tokens"}
    try:
        with torch.inference_mode():
            torch.onnx.export(
                encoder.pooled,
                (sample, sample),
                str(file),
                input_names=[INPUT_IDS, ATTENTION_MASK],
                output_names=[LOGITS],
                dynamic_axes={INPUT_IDS: axes, ATTENTION_MASK: axes, LOGITS: {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise ExportFailed(f"{model.config.model_type} cannot be exported to ONNX: {error}") from error


def _cut(model: PreTrainedModel, layer: int, location: str) -> None:
    """Leaves out the layers after this one: nothing is read from them."""
    stack: Any = getattr(model, "transformer", None) or getattr(model, "encoder", None)
    layers = getattr(stack, "layer", None)
    if not isinstance(layers, torch.nn.ModuleList) or not 1 <= layer <= len(layers):
        of = f"of {len(layers)}" if isinstance(layers, torch.nn.ModuleList) else "that has no list of layers"
        raise SourceRefused(f"{location}: its extractive.json asks for layer {layer} of an encoder {of}")
    stack.layer = layers[:layer]
