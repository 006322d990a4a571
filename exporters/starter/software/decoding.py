"""Generates summaries with a saved checkpoint and its generation settings, which are chosen on dev."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import torch
from tokenizers import Tokenizer
from transformers import BartConfig, BartForConditionalGeneration

from exporters.starter.publishing import write_json
from exporters.starter.training import encode, in_order

FIXED: dict[str, int | float | bool] = {
    "num_beams": 4,
    "early_stopping": True,
    "no_repeat_ngram_size": 3,
    "max_length": 40,
}
"""Fixed settings. `max_length` includes `[CLS]` and `[SEP]`; no synopsis of the train side is longer."""
LENGTH_PENALTIES = (0.5, 1.0, 1.5, 2.5)
MIN_LENGTHS = (0, 8)
GREEDY: dict[str, int | float | bool] = {"num_beams": 1, "early_stopping": False, "length_penalty": 1.0}
"""The overrides for greedy decoding: one beam, no beam-only settings."""
Setting = int | float | bool
Settings = dict[str, Setting]
BATCH = 50


def chosen(score: Callable[[Settings], float]) -> Settings:
    """The best-scoring settings: first the length penalty, then the least length; the first, on a tie."""
    settings: Settings = {**FIXED, "min_length": MIN_LENGTHS[0], "length_penalty": LENGTH_PENALTIES[0]}
    best = score(settings)
    for name, values in (("length_penalty", LENGTH_PENALTIES), ("min_length", MIN_LENGTHS)):
        for value in values[1:]:
            tried = {**settings, name: value}
            if (reached := score(tried)) > best:
                settings, best = tried, reached
    return settings


def write_generation(config: BartConfig, settings: Settings, folder: Path) -> None:
    """Writes `generation_config.json`: the settings, and the ids that begin, pad and end a summary."""
    ids = {
        "bos_token_id": config.bos_token_id,
        "decoder_start_token_id": config.decoder_start_token_id,
        "eos_token_id": config.eos_token_id,
        "forced_eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    }
    write_json({**ids, **settings}, folder / "generation_config.json")


def load(folder: Path) -> tuple[BartForConditionalGeneration, Tokenizer]:
    """Loads the checkpoint's model in fp32, and its tokenizer."""
    model = BartForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))


@torch.inference_mode()
def summaries(
    model: BartForConditionalGeneration,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    max_tokens: int,
    **changed: Setting,
) -> list[str]:
    """Generates the summary of each text, cut at `max_tokens`; `changed` overrides generation settings."""
    generate = cast(Callable[..., torch.Tensor], model.generate)
    found = [""] * len(texts)
    for batch in in_order(encode(tokenizer, texts, max_tokens), BATCH):
        said = generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **changed)
        for at, answer in zip(batch.rows.tolist(), said.tolist(), strict=True):
            found[at] = tokenizer.decode(answer, skip_special_tokens=True)
    return found
