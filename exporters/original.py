"""The checkpoint as its makers run it: transformers, fp32. What every variant is compared with.

Importing this module costs seconds and hundreds of MB (torch, transformers): only an export does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from deployments.engines.base import Logits, padded
from deployments.replica.tokens import TOKENIZER_FILE
from exporters.errors import SourceRefused
from exporters.source import SourceFolder

UNLIMITED = 1_000_000
DEFAULT_WINDOW = 512


@dataclass(frozen=True)
class Original:
    """A loaded checkpoint: its model in fp32, its fast tokenizer, its label names and its window in tokens."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    labels: tuple[str, ...]
    window: int
    pad_id: int

    def encode(self, text: str) -> list[int]:
        """Token ids by the checkpoint's own tokenizer, cut at the window."""
        ids: list[int] = self.tokenizer(text, truncation=True, max_length=self.window)["input_ids"]
        return ids

    def run(self, rows: list[list[int]]) -> Logits:
        """Logits (rows, labels) of a batch padded to its longest row."""
        batch = padded(rows, self.pad_id)
        with torch.inference_mode():
            output = self.model(
                input_ids=torch.from_numpy(batch.token_ids), attention_mask=torch.from_numpy(batch.attention_mask)
            )
        logits: Logits = output.logits.numpy()
        return logits

    def save_tokenizer(self, folder: Path) -> None:
        """Writes tokenizer.json as transformers uses it, which may differ from the checkpoint's by its own config."""
        save_tokenizer(self.tokenizer, folder)


def load_original(source: SourceFolder) -> Original:
    """Loads a classifier and its tokenizer, half-precision weights widened to fp32. Raises SourceRefused."""
    tokenizer = load_tokenizer(source)
    model = load_model(source, AutoModelForSequenceClassification, "a classifier")
    names: dict[int, str] = model.config.id2label or {}
    labels = tuple(str(names[at]) for at in range(model.config.num_labels))
    return Original(model, tokenizer, labels, window_of(model, tokenizer), pad_id_of(tokenizer))


def load_model(source: SourceFolder, kind: Any, name: str, heads: tuple[str, ...] = ()) -> PreTrainedModel:
    """The model of a checkpoint by one of transformers' auto classes, in fp32, in evaluation mode.

    Raises SourceRefused, with `name` for what it should be, when it is something else or weights are missing; those
    whose names begin with one of `heads` may be, for nothing will be read from them.
    """
    try:
        model, report = kind.from_pretrained(
            source.path,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise SourceRefused(f"{source.location}: cannot be loaded as {name}: {_first_line(error)}") from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(heads))
    if missing:
        shown = ", ".join(missing[:4])
        raise SourceRefused(f"{source.location}: the weights of {name} are not all there; missing: {shown}")
    loaded: PreTrainedModel = model.eval()
    return loaded


def pad_id_of(tokenizer: PreTrainedTokenizerFast) -> int:
    """What shorter texts are filled up with; 0 where the tokenizer does not say."""
    return int(tokenizer.pad_token_id) if tokenizer.pad_token_id is not None else 0


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes tokenizer.json as transformers uses it, which may differ from the checkpoint's by its own config."""
    tokenizer.backend_tokenizer.save(str(folder / TOKENIZER_FILE))


def load_tokenizer(source: SourceFolder) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a checkpoint. Raises SourceRefused."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source.path, use_fast=True, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise SourceRefused(f"{source.location}: its tokenizer cannot be loaded: {_first_line(error)}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise SourceRefused(f"{source.location}: its tokenizer has no fast form, which is the only one served")
    return tokenizer


def window_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> int:
    """The tokens one input may have: by the tokenizer and by the positions, whichever is less."""
    limits = [int(tokenizer.model_max_length)] if tokenizer.model_max_length < UNLIMITED else []
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions:
        limits.append(positions - _positions_kept_back(model))
    return min(limits, default=DEFAULT_WINDOW)


def _positions_kept_back(model: PreTrainedModel) -> int:
    """Positions before the first token's: RoBERTa's kin count from after the padding id, so they have two fewer."""
    tables = (module for name, module in model.named_modules() if name.endswith("position_embeddings"))
    reserved = next((getattr(table, "padding_idx", None) for table in tables), None)
    return 0 if reserved is None else int(reserved) + 1


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
