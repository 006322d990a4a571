"""Tiny decoder-only checkpoints of the real architectures, with random weights, equal for equal seeds.

What such a model writes means nothing, but it varies with its prompt and ends by itself now and then, so that one wrong
position or cache shows. `make_causal_checkpoint` writes a whole checkpoint folder; `small_causal` makes a model alone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_seq2seq import WORDS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    DynamicCache,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from deployments.engines.base import Logits, TokenIds

WINDOW = 96
BEGIN, TURN, END = 0, 1, 2
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML, as SmolLM2's tokenizer has it."""

SHARP, FLAT = 0.5, 0.3  # standard deviations: matrices that mix much, token scores close together
IDS = {"bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": END}


def byte_level_bpe() -> Tokenizer:
    """Return a tokenizer of GPT-2's kind: three special tokens and bytes. It adds none of its own."""
    pieces = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({piece: place for place, piece in enumerate(pieces)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


def llama(vocabulary: int) -> PreTrainedModel:
    """Return a model with rotary positions, two query heads to each of keys, and a head tied to the embeddings."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=WINDOW,
            tie_word_embeddings=True,
            **IDS,
        )
    )


def gpt2(vocabulary: int) -> PreTrainedModel:
    """Return a model with learned positions."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_positions=WINDOW, n_embd=32, n_layer=2, n_head=2, **IDS))


def gpt_neo(vocabulary: int) -> PreTrainedModel:
    """Return a model of which every second layer sees eight tokens back only."""
    return GPTNeoForCausalLM(
        GPTNeoConfig(
            vocab_size=vocabulary,
            max_position_embeddings=WINDOW,
            hidden_size=32,
            intermediate_size=64,
            num_layers=2,
            num_heads=2,
            attention_types=[[["global", "local"], 1]],
            window_size=8,
            **IDS,
        )
    )


CAUSAL_FAMILIES: dict[str, Callable[[int], PreTrainedModel]] = {"llama": llama, "gpt2": gpt2, "gpt_neo": gpt_neo}


def small_causal(family: str, seed: int = 7) -> PreTrainedModel:
    """Return a model of the family in evaluation mode."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # with more threads, such small matrices only wait for each other
    model = CAUSAL_FAMILIES[family](byte_level_bpe().get_vocab_size())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.normal_(std=FLAT if "embed" in name or "wte" in name or "wpe" in name else SHARP)
    model.eval()
    return model


def make_causal_checkpoint(
    folder: Path, family: str = "llama", generation: Mapping[str, Any] | None = None, template: str | None = TEMPLATE
) -> Path:
    """Write a checkpoint of the family: config, safetensors, generation config, tokenizer, template, own texts."""
    folder.mkdir(parents=True, exist_ok=True)
    model = small_causal(family)
    model.generation_config = GenerationConfig(**IDS)
    model.save_pretrained(folder, safe_serialization=True)
    own = {**json.loads((folder / "generation_config.json").read_bytes()), **(generation or {})}
    (folder / "generation_config.json").write_text(json.dumps(own))
    byte_level_bpe().save(str(folder / "tokenizer.json"))
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": WINDOW, "eos_token": SPECIALS[END]}
    said |= {"bos_token": SPECIALS[BEGIN], "pad_token": SPECIALS[END]} | (
        {"chat_template": template} if template else {}
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    rows = [{"text": text} for text in prompts(8)]
    (folder / "verification.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def prompts(count: int, seed: int = 11) -> list[str]:
    """Return texts of 1 to 8 words, equal at every call."""
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=1 + at * 3 % 8)) for at in range(count)]


def generated(model: PreTrainedModel, token_ids: Sequence[int], most: int) -> tuple[int, ...]:
    """Return what transformers' own `generate` writes greedily after a prompt, its end token too."""
    ids = torch.tensor([list(token_ids)])
    writer: Any = model
    config = GenerationConfig(max_new_tokens=most, do_sample=False, **IDS)
    with torch.inference_mode():
        written = writer.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return tuple(written[0, len(token_ids) :].tolist())


class TorchWriting:
    """The port `Decoder` over a model itself, with its own cache, to compare other decoders with."""

    def __init__(self, model: PreTrainedModel, token_ids: TokenIds) -> None:
        """Read the prompt without its last token, token ids (tokens,)."""
        self._model: Any = model
        self._cache: Any = DynamicCache()
        if len(token_ids):
            self._run(torch.from_numpy(token_ids)[None])

    def step(self, tokens: TokenIds, origins: TokenIds) -> Logits:
        """Return logits (rows, vocabulary)."""
        if self._cache.get_seq_length():
            self._cache.reorder_cache(torch.from_numpy(origins))
        return self._run(torch.from_numpy(tokens)[:, None])

    def _run(self, ids: torch.Tensor) -> Logits:
        with torch.inference_mode():
            logits: Logits = (
                self._model(input_ids=ids, past_key_values=self._cache, use_cache=True).logits[:, -1].numpy()
            )
        return logits


def ids_of(text: str) -> TokenIds:
    """Return the token ids (tokens,) of a text."""
    return np.asarray(byte_level_bpe().encode(text).ids, dtype=np.int64)
