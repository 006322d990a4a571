"""PyTorch in bf16 with `generate` of transformers: the cost of a checkpoint that is not exported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, GenerationConfig, PreTrainedModel


class TorchPeer:
    """A decoding peer that loads a checkpoint's original folder."""

    encodes_alone = True
    arithmetic = "bf16"

    def __init__(self, model: PreTrainedModel) -> None:
        """Takes a loaded model; `open` makes one."""
        model.generation_config = GenerationConfig()  # else `generate` also applies the checkpoint's own rules
        self._model: Any = model  # its methods are typed as tensors

    @classmethod
    def open(cls, folder: Path, threads: int) -> TorchPeer:
        """Loads safetensors weights as bf16 and runs no code of the checkpoint. Sets the process's thread count."""
        torch.set_num_threads(threads)
        model = AutoModelForSeq2SeqLM.from_pretrained(
            folder, dtype=torch.bfloat16, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
        return cls(model.eval())

    def encode(self, token_ids: Sequence[int]) -> None:
        """Runs the encoder."""
        with torch.inference_mode():
            self._model.get_encoder()(input_ids=torch.tensor([token_ids]))

    def write(self, token_ids: Sequence[int], beams: int, tokens: int) -> int:
        """Greedy or beam search of exactly `tokens` tokens."""
        ids, config = torch.tensor([token_ids]), self._model.config
        rules = GenerationConfig(
            decoder_start_token_id=config.decoder_start_token_id,
            bos_token_id=config.bos_token_id,
            eos_token_id=config.eos_token_id,
            pad_token_id=config.pad_token_id,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            num_beams=beams,
            do_sample=False,
        )
        with torch.inference_mode():
            written = self._model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=rules)
        return int(written.shape[1]) - 1  # the start token stands first
