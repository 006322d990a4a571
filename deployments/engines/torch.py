"""Runs encoders with a head that have no export with PyTorch on the CPU, in fp32: classifiers, taggers, answerers.

Imported only when such a variant is opened: torch and transformers take seconds and hundreds of MB.
"""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from deployments.engines.base import Logits, TokenIds

HEADS: dict[str, Any] = {
    "ForTokenClassification": AutoModelForTokenClassification,
    "ForQuestionAnswering": AutoModelForQuestionAnswering,
}
"""What loads a checkpoint, by the end of its architecture's name; without one of these it is a classifier."""


class TorchEngine:
    """Runs a model of transformers in inference mode."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Takes a loaded model, as `open` makes it."""
        self._model = model
        taken = signature(model.forward).parameters
        self._takes_types = "token_type_ids" in taken
        # Longformer finds the question by three separators in each row, which rows of a profile do not have
        asks = "global_attention_mask" in taken and "start_positions" in taken
        self._question_ends: int | None = model.config.sep_token_id if asks else None

    @classmethod
    def open(cls, folder: Path, threads: int) -> TorchEngine:
        """Loads safetensors weights from a local folder as fp32, never code. Raises what transformers raises.

        The number of threads applies to the whole process, since torch has one pool.
        """
        torch.set_num_threads(threads)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        named = (config.architectures or [""])[0]
        head = next((one for end, one in HEADS.items() if named.endswith(end)), AutoModelForSequenceClassification)
        model = head.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
        return cls(model.eval())

    def run(self, token_ids: TokenIds, attention_mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        """Computes logits (batch, labels), of each token for taggers and answerers (2 labels: first and last), float32.

        Token types count if the model takes them.
        """
        given = {"input_ids": token_ids, "attention_mask": attention_mask}
        if token_types is not None and self._takes_types:
            given["token_type_ids"] = token_types
        if self._question_ends is not None:
            given["global_attention_mask"] = before_first(token_ids, self._question_ends)
        with torch.inference_mode():
            output = self._model(**{name: torch.from_numpy(array) for name, array in given.items()})
            spans = "start_logits" in output
            found = torch.stack([output.start_logits, output.end_logits], dim=-1) if spans else output.logits
        logits: Logits = found.numpy()
        return logits


def before_first(token_ids: TokenIds, end: int) -> TokenIds:
    """Marks the tokens before the first of each row that is `end`, none in a row without it."""
    ends = token_ids == end
    before: TokenIds = ((ends.cumsum(axis=1) == 0) & ends.any(axis=1, keepdims=True)).astype(np.int64)
    return before
