"""Writes full-size encoder-decoder checkpoints with random weights, to measure engines without a download.

The time per token depends on the shapes of the weights, not on their values. The output is an ordinary Hugging Face
folder, which every exporter accepts.

Run as `python -m exporters.random_seq2seq NAME FOLDER [--seed N]`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PreTrainedModel,
)

from exporters.errors import SourceRefused
from exporters.sources.starter_files import starter_folder

TOKENIZER_OF = "starter:minilm-sentiment"
SHORTEST, LONGEST = 56, 142
"""DistilBART's settings for news summaries; without a least length random weights may stop at once."""

PAD, UNKNOWN, BEGIN, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
PAD_ID, BEGIN_ID, END_ID = 0, 2, 3
POSITIONS = 1024
LARGE = {
    "d_model": 1024,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
    "max_position_embeddings": POSITIONS,
}
SPECIAL = {
    "pad_token_id": PAD_ID,
    "bos_token_id": BEGIN_ID,
    "eos_token_id": END_ID,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
}


def distilbart_6_6() -> BartConfig:
    """The shapes of sshleifer/distilbart-cnn-6-6: 6 + 6 layers, norms after, learned positions; 230 M parameters."""
    return _bart(layers=6)


def bart_large() -> BartConfig:
    """The shapes of facebook/bart-large-cnn: 12 + 12 layers, norms after, learned positions; 406 M parameters."""
    return _bart(layers=12)


def _bart(layers: int) -> BartConfig:
    return BartConfig(
        vocab_size=50264,
        encoder_layers=layers,
        decoder_layers=layers,
        decoder_start_token_id=END_ID,
        normalize_before=False,
        normalize_embedding=True,
        **LARGE,
        **SPECIAL,
    )


def pegasus_large() -> PegasusConfig:
    """The shapes of google/pegasus-large: 16 + 16 layers, norms before, computed positions; 571 M parameters."""
    return PegasusConfig(
        vocab_size=96103,
        encoder_layers=16,
        decoder_layers=16,
        decoder_start_token_id=PAD_ID,
        activation_function="relu",
        scale_embedding=True,
        normalize_before=True,
        normalize_embedding=False,
        **LARGE,
        **SPECIAL,
    )


ARCHITECTURES: dict[str, Callable[[], BartConfig | PegasusConfig]] = {
    "distilbart-6-6": distilbart_6_6,
    "bart-large": bart_large,
    "pegasus-large": pegasus_large,
}


def architecture(name: str) -> BartConfig | PegasusConfig:
    """The configuration of a named architecture. Raises SourceRefused, which lists the names."""
    if name not in ARCHITECTURES:
        raise SourceRefused(f"{name}: no such architecture; there are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]()


def write_random_checkpoint(
    config: BartConfig | PegasusConfig, folder: Path, seed: int = 20, dtype: torch.dtype = torch.float16
) -> None:
    """Writes a complete checkpoint into a new folder: safetensors, tokenizer and configurations.

    Equal seeds give equal weights. The tokenizer is the starter's WordPiece, whose ids fit into these vocabularies.
    fp16 by default, to save disk. Raises SourceRefused if the vocabulary is smaller than the tokenizer's, or the
    starter is missing.
    """
    tokenizer = starter_folder(TOKENIZER_OF) / "tokenizer.json"
    entries = len(json.loads(tokenizer.read_bytes())["model"]["vocab"])
    if config.vocab_size < entries:
        raise SourceRefused(f"a vocabulary of {config.vocab_size} does not hold the tokenizer's {entries} entries")
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(config).eval()
    model.generation_config = GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id,
        min_length=SHORTEST,
        max_length=LONGEST,
        **{name: value for name, value in SPECIAL.items() if value is not None},
    )
    model.to(dtype).save_pretrained(folder, safe_serialization=True)
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    _write_tokenizer_config(folder, config.max_position_embeddings)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Exit status: 0 written, 1 refused."""
    parser = argparse.ArgumentParser(description="Writes a full-size checkpoint with random weights.")
    parser.add_argument("name", choices=list(ARCHITECTURES))
    parser.add_argument("folder", type=Path, help="the folder to create; must not hold a checkpoint")
    parser.add_argument("--seed", type=int, default=20, help="of the weights (default: %(default)s)")
    options = parser.parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    if (options.folder / "config.json").exists():
        console.print(f"[red]error:[/red] {options.folder} holds a checkpoint already")
        return 1
    with console.status(f"writing random weights in the shapes of {options.name}"):
        write_random_checkpoint(architecture(options.name), options.folder, options.seed)
    size = sum(file.stat().st_size for file in options.folder.iterdir())
    console.print(f"{options.name}: {size / 1e6:.0f} MB in {options.folder}")
    return 0


def _model(config: BartConfig | PegasusConfig) -> PreTrainedModel:
    if isinstance(config, PegasusConfig):
        return PegasusForConditionalGeneration(config)
    return BartForConditionalGeneration(config)


def _write_tokenizer_config(folder: Path, positions: int) -> None:
    """Writes the configuration with which AutoTokenizer loads the fast tokenizer, its special tokens and its limit."""
    special = {"pad_token": PAD, "unk_token": UNKNOWN, "bos_token": BEGIN, "eos_token": END}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": positions,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
