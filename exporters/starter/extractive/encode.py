"""Sentences to embeddings: a starter encoder cut after a layer, its hidden states averaged over a sentence's tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModel

from deployments.replica.summarize.ranking import Floats
from exporters.starter.batches import encode, in_order
from exporters.starter.registry import file_sha256

BATCH = 32
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Encoder:
    """A checkpoint's folder, the number of its layers that are run, and the tokens of a sentence that are read."""

    folder: Path
    layer: int
    max_tokens: int

    @property
    def key(self) -> str:
        """What an embedding depends on besides its sentence."""
        return f"{file_sha256(self.folder / 'model.safetensors')} {self.layer} {self.max_tokens}"


def embed(encoder: Encoder, sentences: Sequence[str], cache: Path, advance: Advance) -> Floats:
    """Embeddings [sentences, width], as computed in fp32 and kept in fp16 under `cache`, where they are looked for."""
    digest = hashlib.sha256("\0".join([encoder.key, *sentences]).encode()).hexdigest()
    path = cache / "embeddings" / f"{digest[:32]}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part.npy")
        np.save(unfinished, _computed(encoder, sentences, advance).astype(np.float16))
        unfinished.rename(path)
    advance(len(sentences), len(sentences))
    embeddings: Floats = np.load(path).astype(np.float32)
    return embeddings


def _computed(encoder: Encoder, sentences: Sequence[str], advance: Advance) -> Floats:
    model = AutoModel.from_pretrained(encoder.folder, dtype=torch.float32).eval()
    stack = model.transformer if hasattr(model, "transformer") else model.encoder
    stack.layer = stack.layer[: encoder.layer]
    rows = encode(Tokenizer.from_file(str(encoder.folder / "tokenizer.json")), sentences, encoder.max_tokens)
    embeddings = np.zeros((len(sentences), model.config.hidden_size), dtype=np.float32)
    done = 0
    with torch.inference_mode():
        for batch in in_order(rows, BATCH):
            states = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
            mask = batch.attention_mask[..., None].to(states.dtype)
            embeddings[batch.rows.numpy()] = ((states * mask).sum(1) / mask.sum(1)).numpy()
            done += len(batch.rows)
            advance(done, len(sentences))
    return embeddings
