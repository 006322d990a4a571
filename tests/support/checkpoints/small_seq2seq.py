"""Tiny encoder-decoder checkpoints of the real architectures, with random weights, equal for equal seeds.

What such a model writes means nothing, but it varies with its input, has many different tokens and ends by itself now
and then, so that one wrong step of a search or of a cache shows. `make_seq2seq_checkpoint` writes a whole checkpoint
folder; `small_seq2seq` makes a model alone, for tests that need no files.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import GenerationConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from deployments.engines.base import Decoder, Logits, TokenIds
from deployments.replica.writing.beam_search import BeamSearch, SearchRules

NEWS = (
    "the a of and to in was said for on with as by at from river bridge council water winter harbour market train "
    "school doctor police report early late north south opened closed moved raised found lost three seven hundred"
)
WORDS = tuple(NEWS.split())
WINDOW = 64
LONGEST_OUTPUT = 40
SHARP, FLAT = 0.6, 0.25  # standard deviations: matrices that mix much, token scores close together
SIZES = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": WINDOW,
}


def byte_level_bpe() -> Tokenizer:
    """Return a tokenizer of BART's kind: bytes, `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3; it makes `<s> text </s>`."""
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({piece: place for place, piece in enumerate(pieces)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def sentencepiece_unigram() -> Tokenizer:
    """Return a tokenizer of Pegasus' and T5's kind: `<pad>` 0, `</s>` 1, `<unk>` 2, words and letters."""
    specials = ["<pad>", "</s>", "<unk>"]
    letters = "▁abcdefghijklmnopqrstuvwxyz0123456789.,:!?'"
    pieces = [(piece, 0.0) for piece in specials]
    pieces += [(f"▁{word}", -3.0) for word in WORDS] + [(letter, -9.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


_T5_SIZES = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "tie_word_embeddings": False}
_GATED = {
    "feed_forward_proj": "gated-gelu",
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
}
_FROM_PADDING = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
"""Writing starts at `<pad>`."""

ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bart": (
        "Bart",
        "ForConditionalGeneration",
        {
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": 2,
            **SIZES,
        },
    ),
    "pegasus": (
        "Pegasus",
        "ForConditionalGeneration",
        {"scale_embedding": True, **_FROM_PADDING, "forced_eos_token_id": 1, **SIZES},
    ),
    "t5": ("T5", "ForConditionalGeneration", {**_T5_SIZES, **_FROM_PADDING}),
    "mt5": ("MT5", "ForConditionalGeneration", {**_T5_SIZES, **_GATED, **_FROM_PADDING}),
    "marian": ("Marian", "MTModel", {"scale_embedding": True, **_FROM_PADDING, "forced_eos_token_id": None, **SIZES}),
    "mbart": (
        "MBart",
        "ForConditionalGeneration",
        {
            "scale_embedding": True,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 1,
            "decoder_start_token_id": 1,
            "forced_eos_token_id": None,
            **SIZES,
        },
    ),
}
"""Each family by transformers' name, with its head and the config of a model of two layers.

BART has learned positions and tied embeddings; Pegasus sinusoidal positions, layer norms first and scaled embeddings;
T5 relative positions and no biases; mT5 is T5's version 1.1, with gates in its layers, a head of its own and positions
of few buckets; Marian has sinusoidal positions and layer norms last; mBART learned ones, and layer norms before and
behind the layers.
"""

SEQ2SEQ_FAMILIES = ("bart", "pegasus", "t5", "mt5")
SHARING_FAMILIES = tuple(ARCHITECTURES)
"""All families whose texts may share steps."""

GENERATION: dict[str, dict[str, object]] = {
    "bart": {
        "num_beams": 4,
        "length_penalty": 2.0,
        "early_stopping": True,
        "no_repeat_ngram_size": 3,
        "min_length": 6,
        "bos_token_id": 0,
        "forced_bos_token_id": 0,
        "forced_eos_token_id": 2,
    },
    "pegasus": {"num_beams": 4, "length_penalty": 0.6, "early_stopping": False, "forced_eos_token_id": 1},
    "t5": {"num_beams": 2, "length_penalty": 1.0, "early_stopping": True, "no_repeat_ngram_size": 2},
    "mt5": {"num_beams": 2, "length_penalty": 1.0},
}


SEEDS = {"mt5": 1}
"""Seeds of models that write something of every text; 7 where a family is absent."""


def seq2seq_tokenizer(family: str) -> Tokenizer:
    """Return the family's tokenizer; its vocabulary is 100 to 300 tokens."""
    return byte_level_bpe() if family == "bart" else sentencepiece_unigram()


def small_seq2seq(family: str, seed: int | None = None) -> PreTrainedModel:
    """Return a model of the family in evaluation mode, whose generation config is a plain greedy search."""
    torch.manual_seed(SEEDS.get(family, 7) if seed is None else seed)
    torch.set_num_threads(1)  # with more threads, such small matrices only wait for each other
    name, head, sizes = ARCHITECTURES[family]
    config, kind = getattr(transformers, f"{name}Config"), getattr(transformers, f"{name}{head}")
    model: PreTrainedModel = kind(config(vocab_size=seq2seq_tokenizer(family).get_vocab_size(), **sizes))
    redraw(model)
    model.generation_config = _generation(family, model, beams=False)
    model.eval()
    return model


def make_seq2seq_checkpoint(folder: Path, family: str = "bart", seed: int | None = None) -> Path:
    """Write a checkpoint of the family, laid out as the Hub's summarizers are.

    Files: config, safetensors (fp32), generation_config.json with the family's usual beam search, tokenizer.json and
    tokenizer_config.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = small_seq2seq(family, seed)
    model.generation_config = _generation(family, model, beams=True)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer = seq2seq_tokenizer(family)
    tokenizer.save(str(folder / "tokenizer.json"))
    names: dict[str, object] = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    names |= {"bos_token": "<s>"} if family == "bart" else {}
    names |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": WINDOW}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def articles(count: int, seed: int = 11) -> list[str]:
    """Return texts of 3 to 7 words, which fit into every family's window, equal at every call."""
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(3, 7))) for _ in range(count)]


def redraw(model: PreTrainedModel) -> None:
    """Draw the weights anew, so that the end is now and then by far the best token."""
    end = model.config.eos_token_id
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.normal_(std=FLAT if name.startswith(("shared", "model.shared", "lm_head")) else SHARP)
            if name.startswith(("shared", "model.shared", "lm_head")):
                weight[end] *= 2.5
        if model.config.model_type == "bart":
            bias = model.get_buffer("final_logits_bias")
            bias[0, end] = 3.0  # otherwise the end is best one time in 300


def _generation(family: str, model: PreTrainedModel, beams: bool) -> GenerationConfig:
    """Return the generation config: special tokens, the longest output, and with `beams` the family's beam search."""
    config = model.config
    settings: dict[str, object] = {
        "decoder_start_token_id": config.decoder_start_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "max_length": LONGEST_OUTPUT,
    }
    if beams:
        settings |= GENERATION[family]
    return GenerationConfig(**settings)


class TorchDecoder:
    """The port `Decoder` over a model itself, with its own cache, to compare other decoders with."""

    def __init__(self, model: PreTrainedModel, token_ids: TokenIds) -> None:
        """Read the text, token ids (tokens,)."""
        self._model: Any = model
        self._cache: Any = None
        encoder: Callable[..., Any] = cast(Any, model).get_encoder()
        with torch.inference_mode():
            self._states = encoder(input_ids=torch.from_numpy(token_ids)[None]).last_hidden_state

    def step(self, tokens: TokenIds, origins: TokenIds) -> Logits:
        """Return logits (rows, vocabulary)."""
        if self._cache is not None:
            self._cache.reorder_cache(torch.from_numpy(origins))
        with torch.inference_mode():
            output = self._model(
                encoder_outputs=BaseModelOutput(last_hidden_state=self._states.expand(len(tokens), -1, -1)),
                decoder_input_ids=torch.from_numpy(tokens)[:, None],
                past_key_values=self._cache,
                use_cache=True,
            )
        self._cache = output.past_key_values
        logits: Logits = output.logits[:, -1].float().numpy()
        return logits


def rules_of(model: PreTrainedModel, **settings: Any) -> SearchRules:
    """Return the rules of a search with the model's special tokens and these settings."""
    config: Any = model.config
    return SearchRules(config.decoder_start_token_id, (config.eos_token_id,), config.pad_token_id, **settings)


def finish(search: BeamSearch, decoder: Decoder) -> tuple[int, ...]:
    """Run a search to its end and return the best tokens."""
    while not search.done:
        search.feed(decoder.step(*search.pending))
    return search.best()


def generate(model: PreTrainedModel, token_ids: TokenIds, rules: SearchRules) -> tuple[int, ...]:
    """Return what transformers' own `generate` writes under these rules, after the start token, with padding."""
    config = GenerationConfig(
        decoder_start_token_id=rules.decoder_start_token_id,
        eos_token_id=list(rules.eos_token_ids),
        pad_token_id=rules.pad_token_id,
        max_new_tokens=rules.max_new_tokens,
        min_new_tokens=rules.min_new_tokens,
        num_beams=rules.beams,
        no_repeat_ngram_size=rules.no_repeat_ngram_size,
        forced_bos_token_id=rules.forced_bos_token_id,
        forced_eos_token_id=rules.forced_eos_token_id,
        bad_words_ids=[[token] for token in rules.suppressed_token_ids] or None,
        **({"length_penalty": rules.length_penalty, "early_stopping": rules.early_stopping} if rules.beams > 1 else {}),
    )
    ids = torch.from_numpy(token_ids)[None]
    writer: Any = model
    with torch.inference_mode():
        written = writer.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return tuple(written[0, 1:].tolist())
