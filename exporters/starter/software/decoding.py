"""The generation settings that travel with the checkpoint, and their choice on dev."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from transformers import BartConfig

FIXED: dict[str, int | float | bool] = {
    "num_beams": 4,
    "early_stopping": True,
    "no_repeat_ngram_size": 3,
    "max_length": 40,
}
"""`max_length` counts `[CLS]` and `[SEP]`; no synopsis of the training side is longer."""
LENGTH_PENALTIES = (0.5, 1.0, 1.5, 2.5)
MIN_LENGTHS = (0, 8)
GREEDY: dict[str, int | float | bool] = {"num_beams": 1, "early_stopping": False, "length_penalty": 1.0}
"""What is changed to decode greedily: one beam, and none of what only beams have."""
Settings = dict[str, int | float | bool]


def chosen(score: Callable[[Settings], float]) -> Settings:
    """The settings that score best: the length penalty is chosen first, then the least length; the first, on a tie."""
    settings: Settings = {**FIXED, "min_length": MIN_LENGTHS[0], "length_penalty": LENGTH_PENALTIES[0]}
    best = score(settings)
    for name, values in (("length_penalty", LENGTH_PENALTIES), ("min_length", MIN_LENGTHS)):
        for value in values[1:]:
            tried = {**settings, name: value}
            if (reached := score(tried)) > best:
                settings, best = tried, reached
    return settings


def write_generation(config: BartConfig, settings: Settings, folder: Path) -> None:
    """Write `generation_config.json`: the settings, and the ids that begin, pad and end a summary."""
    ids = {
        "bos_token_id": config.bos_token_id,
        "decoder_start_token_id": config.decoder_start_token_id,
        "eos_token_id": config.eos_token_id,
        "forced_eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    }
    text = json.dumps({**ids, **settings}, indent=2, sort_keys=True)
    (folder / "generation_config.json").write_text(text + "\n", encoding="utf-8")
