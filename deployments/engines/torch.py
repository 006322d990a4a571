"""Runs classifiers that have no export with PyTorch on the CPU, in fp32.

Imported only when such a variant is opened: torch and transformers take seconds and hundreds of MB.
"""

from __future__ import annotations

from inspect import signature
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from deployments.engines.base import Logits, TokenIds


class TorchEngine:
    """Runs a sequence classifier of transformers in inference mode."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Takes a loaded model, as `open` makes it."""
        self._model = model
        self._takes_types = "token_type_ids" in signature(model.forward).parameters

    @classmethod
    def open(cls, folder: Path, threads: int) -> TorchEngine:
        """Loads safetensors weights from a local folder as fp32, never code. Raises what transformers raises.

        The number of threads applies to the whole process, since torch has one pool.
        """
        torch.set_num_threads(threads)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
        return cls(model.eval())

    def run(self, token_ids: TokenIds, attention_mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        """Computes logits (batch, labels), float32. Token types count if the model takes them."""
        given = {"input_ids": token_ids, "attention_mask": attention_mask}
        if token_types is not None and self._takes_types:
            given["token_type_ids"] = token_types
        with torch.inference_mode():
            output = self._model(**{name: torch.from_numpy(array) for name, array in given.items()})
        logits: Logits = output.logits.numpy()
        return logits
