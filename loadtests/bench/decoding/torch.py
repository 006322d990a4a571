"""PyTorch with `generate` of transformers: the cost of a checkpoint that is not exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from gateway.model.manifest import GenerationRules


class TorchPeer:
    """A decoding peer, in bf16, that loads a checkpoint's original folder."""

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


class CausalTorchPeer:
    """A decoder-only checkpoint's original folder in fp32, which writes on from prompts in one batch."""

    def __init__(self, model: PreTrainedModel, pad_id: int, end_ids: Sequence[int]) -> None:
        """Takes a loaded model; `open` makes one."""
        model.generation_config = GenerationConfig()  # else `generate` also applies the checkpoint's own rules
        self._model: Any = model  # its methods are typed as tensors
        self._pad_id = pad_id
        self._end_ids = list(end_ids)

    @classmethod
    def open(cls, folder: Path, threads: int, pad_id: int, end_ids: Sequence[int]) -> CausalTorchPeer:
        """Loads safetensors weights as fp32 and runs no code of the checkpoint. Sets the process's thread count."""
        torch.set_num_threads(threads)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
        return cls(model.eval(), pad_id, end_ids)

    def write(
        self, prompts: Sequence[Sequence[int]], tokens: int, told: Callable[[], None] = lambda: None
    ) -> list[list[int]]:
        """The `tokens` likeliest tokens after each prompt, none of which ends it. Prompts are padded on their left.

        `told` is called whenever each prompt has one more token.
        """
        longest = max(map(len, prompts))
        ids = torch.tensor([[self._pad_id] * (longest - len(one)) + list(one) for one in prompts])
        mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts])
        rules = GenerationConfig(
            eos_token_id=self._end_ids,
            pad_token_id=self._pad_id,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            do_sample=False,
        )
        with torch.inference_mode():
            written = self._model.generate(ids, attention_mask=mask, generation_config=rules, streamer=_Told(told))
        found: list[list[int]] = written[:, longest:].tolist()
        return found


class Seq2SeqTorchPeer:
    """An encoder-decoder's original folder in fp32, which summarises sources in one batch."""

    def __init__(self, model: PreTrainedModel, pad_id: int, rules: GenerationRules) -> None:
        """Takes a loaded model; `open` makes one."""
        model.generation_config = GenerationConfig()  # else `generate` also applies the checkpoint's own rules
        self._model: Any = model  # its methods are typed as tensors
        self._pad_id = pad_id
        self._rules = rules

    @classmethod
    def open(cls, folder: Path, threads: int, pad_id: int, rules: GenerationRules) -> Seq2SeqTorchPeer:
        """Loads safetensors weights as fp32 and runs no code of the checkpoint. Sets the process's thread count."""
        torch.set_num_threads(threads)
        model = AutoModelForSeq2SeqLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
        return cls(model.eval(), pad_id, rules)

    def write(
        self,
        sources: Sequence[Sequence[int]],
        tokens: int,
        beams: int,
        told: Callable[[], None] = lambda: None,
    ) -> list[list[int]]:
        """What is written of each source in `tokens` steps, with special tokens. Sources are padded on their right.

        `told` is called whenever each source has one more token; not at all for several beams.
        """
        rules, longest = self._rules, max(map(len, sources))
        ids = torch.tensor([list(one) + [self._pad_id] * (longest - len(one)) for one in sources])
        mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in sources])
        asked = GenerationConfig(
            decoder_start_token_id=rules.decoder_start_token_id,
            eos_token_id=list(rules.eos_token_ids),
            pad_token_id=self._pad_id,
            forced_bos_token_id=rules.forced_bos_token_id,
            forced_eos_token_id=rules.forced_eos_token_id,
            no_repeat_ngram_size=rules.no_repeat_ngram_size,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            num_beams=beams,
            do_sample=False,
            **({"length_penalty": rules.length_penalty, "early_stopping": rules.early_stopping} if beams > 1 else {}),
        )
        streamed = {"streamer": _Told(told)} if beams == 1 else {}
        with torch.inference_mode():
            written = self._model.generate(ids, attention_mask=mask, generation_config=asked, **streamed)
        found: list[list[int]] = written[:, 1:].tolist()
        return found


class _Told(BaseStreamer):
    """Calls back at each step of `generate`, which gives it the prompts first."""

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told
        self._begun = False

    def put(self, value: torch.Tensor) -> None:
        """Takes the prompts, or the next token of each."""
        if self._begun:
            self._told()
        self._begun = True

    def end(self) -> None:
        """Does nothing: `generate` returns all tokens."""
