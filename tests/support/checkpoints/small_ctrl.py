"""A tiny CTRL, always equal, with random weights, a vocabulary of CTRL's kind, and control codes."""

from __future__ import annotations

import json
import string
from pathlib import Path

import torch
from small_causal import SHARP, WINDOW, prompts
from small_seq2seq import WORDS
from transformers import CTRLConfig, CTRLLMHeadModel, PreTrainedModel

CODES = ("Links", "Opinion", "Wikipedia")
UNMADE = "zebra"
"""A word that merges make and the vocabulary lacks, as there are in the published one."""

LOW = 0.1
"""The standard deviation of embeddings, which the model takes sqrt(32) times: with more it repeats its last token."""


def vocabulary() -> tuple[dict[str, int], list[str]]:
    """Return the pieces of a vocabulary, each with its id, and the merges that make words of letters."""
    merges: dict[str, None] = {}
    pieces = dict.fromkeys([*CODES, *WORDS])
    for word in [UNMADE, *CODES, *sorted(set(WORDS))]:
        for at in range(1, len(word)):
            last = at == len(word) - 1
            merges[f"{word[:at]} {word[at]}{'</w>' if last else ''}"] = None
            if not last:
                pieces[f"{word[: at + 1]}@@"] = None
    signs = [*string.ascii_letters, *string.digits, *string.punctuation]
    every = [*pieces, *signs, *(f"{sign}@@" for sign in signs), "<unk>", "\n"]
    return {piece: at for at, piece in enumerate(dict.fromkeys(every))}, list(merges)


def small_ctrl(seed: int = 7) -> PreTrainedModel:
    """Return a model in evaluation mode."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # with more threads, such small matrices only wait for each other
    sizes = {"n_positions": WINDOW, "n_embd": 32, "dff": 64, "n_layer": 2, "n_head": 2}
    model = CTRLLMHeadModel(CTRLConfig(vocab_size=len(vocabulary()[0]), **sizes))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.normal_(std=LOW if name.endswith(".w.weight") else SHARP)
            elif "lm_head" in name:
                weight.normal_(std=LOW)
    model.eval()
    return model


def make_ctrl_checkpoint(folder: Path) -> Path:
    """Write a checkpoint as CTRL is published, in safetensors: config, weights, words and merges, own texts."""
    folder.mkdir(parents=True)
    small_ctrl().save_pretrained(folder, safe_serialization=True)
    pieces, merges = vocabulary()
    (folder / "vocab.json").write_text(json.dumps(pieces))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.1", *merges, ""]))
    said = {"tokenizer_class": "CTRLTokenizer", "model_max_length": WINDOW}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    rows = [{"text": f"{CODES[at % 3]} {text}"} for at, text in enumerate(prompts(8))]
    (folder / "verification.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder
