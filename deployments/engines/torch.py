"""Runs classifiers that have no export with PyTorch on the CPU, in fp32.

Imported only when such a variant is opened: torch and transformers take seconds and hundreds of MB.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from deployments.engines.base import Logits, TokenIds


class TorchEngine:
    """Runs a sequence classifier of transformers in inference mode."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Takes a loaded model, as `open` makes it."""
        self._model = model

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

    def run(self, token_ids: TokenIds, attention_mask: TokenIds) -> Logits:
        """Computes logits (batch, labels), float32."""
        with torch.inference_mode():
            output = self._model(input_ids=torch.from_numpy(token_ids), attention_mask=torch.from_numpy(attention_mask))
        logits: Logits = output.logits.numpy()
        return logits
