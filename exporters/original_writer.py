"""An encoder-decoder as its makers run it: transformers, fp32, its own generation config. See `exporters.original`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from deployments.engines.base import padded
from exporters.generation import lower_cases, rules_of, summarising
from exporters.original import load_model, load_tokenizer, pad_id_of, save_tokenizer, window_of
from exporters.source import SourceFolder
from gateway.model.manifest import GenerationRules

GREEDY: dict[str, Any] = {
    "num_beams": 1,
    "do_sample": False,
    "early_stopping": False,
    "length_penalty": 1.0,
    "max_new_tokens": None,
    "min_new_tokens": None,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "typical_p": 1.0,
}
"""What replaces a checkpoint's own choices: one beam, no chance, and lengths that are said in tokens in all."""


@dataclass(frozen=True)
class OriginalWriter:
    """A loaded encoder-decoder: its model in fp32, its fast tokenizer, its rules of writing and its window in tokens.

    `generation` is its generation config as a summarisation pipeline uses it.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    rules: GenerationRules
    generation: dict[str, Any]
    window: int
    pad_id: int

    def encode(self, text: str) -> list[int]:
        """Token ids by the checkpoint's own tokenizer, behind its prefix, cut at the window."""
        text = f"{self.rules.prefix}{text}"
        ids: list[int] = self.tokenizer(text, truncation=True, max_length=self.window)["input_ids"]
        return ids

    def save_tokenizer(self, folder: Path) -> None:
        """Writes tokenizer.json as transformers uses it."""
        save_tokenizer(self.tokenizer, folder)

    def write(self, rows: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        """What transformers writes greedily after each row of token ids: everything after the start token.

        The rules become the model's own generation config: where an argument's value is the library's default,
        `generate` would take the checkpoint's instead, and so its beams in place of one.
        """
        batch = padded(rows, self.pad_id)
        most = min(max_new_tokens, self.rules.max_new_tokens)
        least = min(most, self.rules.min_new_tokens)
        lengths = {"max_length": most + 1, "min_length": least + 1 if least else 0}  # the start token counts
        self.model.generation_config = GenerationConfig(**{**self.generation, **GREEDY, **lengths})
        generate: Any = self.model.generate  # typed as a tensor
        with torch.inference_mode():
            written = generate(
                input_ids=torch.from_numpy(batch.token_ids), attention_mask=torch.from_numpy(batch.attention_mask)
            )
        found: list[list[int]] = written[:, 1:].tolist()
        return found


def load_original_writer(source: SourceFolder) -> OriginalWriter:
    """Loads an encoder-decoder and its tokenizer, half-precision weights widened to fp32. Raises SourceRefused."""
    tokenizer = load_tokenizer(source)
    model = load_model(source, AutoModelForSeq2SeqLM, "an encoder-decoder")
    config = model.config.to_dict()
    given = model.generation_config or GenerationConfig()
    generation = summarising(given.to_dict(), config)
    lower_cased = lower_cases(json.loads(tokenizer.backend_tokenizer.to_str()))
    rules = rules_of(generation, config, source.location, lower_cased)
    return OriginalWriter(model, tokenizer, rules, generation, window_of(model, tokenizer), pad_id_of(tokenizer))
