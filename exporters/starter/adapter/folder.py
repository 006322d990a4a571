"""Writes an adapter's folder: weights and settings as PEFT has them, the merged config, and the pinned base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from exporters.sources.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, BASE_FILE, Base
from exporters.starter.adapter.low_rank import ADAPTED
from exporters.starter.publishing import config_of, write_halves, write_json


def peft_config(base: str, rank: int, alpha: int, **own: object) -> dict[str, object]:
    """The settings of an adapter in PEFT's format; `base` is the type of its base, `own` what others have otherwise."""
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ADAPTED[base],
        "inference_mode": True,
        **own,
    }


def write_adapter(
    tensors: Mapping[str, torch.Tensor],
    model: PreTrainedModel,
    settings: Mapping[str, object],
    base: Base,
    folder: Path,
    **config: object,
) -> None:
    """Writes trained tensors in fp16, PEFT's settings, the pinned base, and the merged checkpoint's config.

    `config` are fields of that config that the model does not have.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_halves(tensors, folder / ADAPTER_WEIGHTS)
    write_json({**config_of(model), **config}, folder / "config.json")
    write_json(settings, folder / ADAPTER_CONFIG)
    write_json(json.loads(msgspec.json.encode(base)), folder / BASE_FILE)


def trained_count(folder: Path) -> int:
    """The number of trained parameters that a folder holds."""
    return sum(tensor.numel() for tensor in load_file(folder / ADAPTER_WEIGHTS).values())
