"""Summaries by a saved checkpoint, as its own generation settings say: what scores it, and what chose the settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import torch
from tokenizers import Tokenizer
from transformers import BartForConditionalGeneration

from exporters.starter.software.rows import PAD_ID

BATCH = 50
Setting = int | float | bool


def load(folder: Path) -> tuple[BartForConditionalGeneration, Tokenizer]:
    """The checkpoint's model, computed in fp32, and its tokenizer."""
    model = BartForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))


@torch.inference_mode()
def summaries(
    model: BartForConditionalGeneration, tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int, **changed: Setting
) -> list[str]:
    """The summary of each text, cut at `max_tokens`; `changed` overrides the checkpoint's generation settings."""
    generate = cast(Callable[..., torch.Tensor], model.generate)
    tokenizer.enable_truncation(max_tokens)
    ids = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
    found = [""] * len(ids)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        longest = len(ids[rows[-1]])
        block = torch.tensor([[*ids[at], *([PAD_ID] * (longest - len(ids[at])))] for at in rows])
        mask = (block != PAD_ID).long()
        said = generate(input_ids=block, attention_mask=mask, **changed)
        for at, answer in zip(rows, said.tolist(), strict=True):
            found[at] = tokenizer.decode(answer, skip_special_tokens=True)
    return found
