"""A checkpoint in PyTorch as it is fine-tuned: one forward pass, and one step of training by Adam.

It loads a checkpoint's folder, or makes a full-size one with random weights of a known shape: times and memory depend
on shapes, not on values. It trains nothing that is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from exporters.errors import SourceRefused
from gateway.advising.knowledge import Architecture
from gateway.advising.shape import Shape

WRITTEN = 32
"""Tokens that an encoder-decoder is trained to write for a text, fewer if the text is shorter."""

LEARNING_RATE = 5e-5
"""The usual one of fine-tuning (Devlin et al., BERT, A.3). Steps of measured runs are thrown away."""

SPARE_POSITIONS = 2
"""Positions that architectures like RoBERTa count from."""

MODEL_TYPES = {
    "ALBERT": "albert",
    "BART": "bart",
    "BERT": "bert",
    "CTRL": "ctrl",
    "CamemBERT": "camembert",
    "DialoGPT": "gpt2",
    "DistilBERT": "distilbert",
    "DistilGPT-2": "gpt2",
    "ELECTRA": "electra",
    "GPT-2": "gpt2",
    "GPT-Neo": "gpt_neo",
    "LayoutLM": "layoutlm",
    "Llama": "llama",
    "Longformer": "longformer",
    "M2M-100": "m2m_100",
    "MPNet": "mpnet",
    "MarianMT": "marian",
    "MobileBERT": "mobilebert",
    "NLLB": "m2m_100",
    "Pegasus": "pegasus",
    "RoBERTa": "roberta",
    "T5": "t5",
    "TinyBERT": "bert",
    "XLM-RoBERTa": "xlm-roberta",
    "XLNet": "xlnet",
    "mBART": "mbart",
    "mT5": "mt5",
}
"""The architecture of transformers for each family of the knowledge."""

GIVEN: dict[str, Callable[[Shape], dict[str, Any]]] = {
    "gpt_neo": lambda shape: {
        "num_layers": shape.layers,
        "attention_types": [[["global", "local"], shape.layers // 2]],  # layers see all and near tokens in turn
    },
    "llama": lambda shape: {"num_key_value_heads": shape.heads, "head_dim": shape.width // shape.heads},
}
"""Fields that the shape decides for an architecture alone. No shape says how many heads share keys and values."""

NAMES: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "encoder_layers"),
    "decoder_layers": ("decoder_layers", "num_decoder_layers"),
    "width": ("hidden_size", "dim", "d_model", "n_embd"),
    "inner": ("intermediate_size", "hidden_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "d_inner", "dff"),
    "heads": ("num_attention_heads", "n_heads", "n_head", "num_heads", "encoder_attention_heads"),
    "vocabulary": ("vocab_size",),
    "embedding": ("embedding_size",),
    "window": ("max_position_embeddings", "n_positions"),
}
"""The fields of a configuration that have each size of a shape."""

MODELS: dict[Architecture, Any] = {
    "encoder": AutoModelForSequenceClassification,
    "decoder": AutoModelForCausalLM,
    "encoder-decoder": AutoModelForSeq2SeqLM,
}


class TorchRuns:
    """A loaded model, and what is run of it. `parameters` is their number."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model: Any = model  # its methods are typed as tensors
        self._writes = bool(model.config.is_encoder_decoder)
        self._learns = not self._writes and "CausalLM" not in type(model).__name__ and "LMHead" not in _named(model)
        self.parameters = sum(one.numel() for one in model.parameters())
        self._optimizer: torch.optim.Optimizer | None = None

    @classmethod
    def of_folder(cls, folder: Path, threads: int) -> TorchRuns:
        """Loads a checkpoint's folder: safetensors in fp32, no code of its own. Sets the process's threads."""
        torch.set_num_threads(threads)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        model = _class_of(config).from_pretrained(
            folder, config=config, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
        return cls(model.float())

    @classmethod
    def of_shape(cls, family: str, architecture: Architecture, shape: Shape, threads: int) -> TorchRuns:
        """Makes a checkpoint of a family with random weights, in fp32. Raises SourceRefused for an unknown family."""
        torch.set_num_threads(threads)
        return cls(MODELS[architecture].from_config(config_of(family, shape)))

    def forward(self, batch: int, tokens: int) -> None:
        """Runs the model on random texts, without what training keeps."""
        self._model.eval()
        with torch.inference_mode():
            self._model(**self._texts(batch, tokens))

    def train(self, batch: int, tokens: int) -> None:
        """Runs one step of training on random texts: forward, backward, and Adam on every parameter."""
        self._model.train()
        if self._optimizer is None:
            self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=LEARNING_RATE)
        texts = self._texts(batch, tokens)
        labels = torch.zeros(batch, dtype=torch.long) if self._learns else texts["input_ids"]
        if self._writes:
            labels = texts.pop("decoder_input_ids")
        self._model(**texts, labels=labels).loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def runs(self) -> dict[str, Callable[[int, int], None]]:
        """What can be measured, by name."""
        return {"torch forward": self.forward, "torch training step": self.train}

    def _texts(self, batch: int, tokens: int) -> dict[str, torch.Tensor]:
        """Texts of random tokens, all as long."""
        drawn = torch.randint(5, min(1000, self._model.config.vocab_size), (batch, tokens))
        given = {"input_ids": drawn, "attention_mask": torch.ones_like(drawn)}
        if self._writes:
            given["decoder_input_ids"] = drawn[:, : min(tokens, WRITTEN)].contiguous()
        return given


def _named(model: PreTrainedModel) -> str:
    return type(model).__name__


def _class_of(config: PretrainedConfig) -> Any:
    """The kind of model that a checkpoint's configuration asks for."""
    if config.is_encoder_decoder:
        return AutoModelForSeq2SeqLM
    named = " ".join(config.architectures or ())
    return AutoModelForCausalLM if "CausalLM" in named or "LMHead" in named else AutoModelForSequenceClassification


def config_of(family: str, shape: Shape) -> PretrainedConfig:
    """The configuration of a family in these sizes. Raises SourceRefused, which lists the families."""
    if family not in MODEL_TYPES:
        raise SourceRefused(f"{family}: no such family; there are {', '.join(MODEL_TYPES)}")
    given = GIVEN[MODEL_TYPES[family]](shape) if MODEL_TYPES[family] in GIVEN else {}
    config = AutoConfig.for_model(MODEL_TYPES[family], **given)
    own = config.to_dict().keys() - given.keys()
    sizes = shape.model_dump() | {
        "embedding": shape.embedding or shape.width,
        "window": shape.window + SPARE_POSITIONS,
    }
    for size, names in NAMES.items():
        value = sizes[size]
        for name in names:
            if value and name in own:
                setattr(config, name, value)
    if hasattr(config, "decoder_attention_heads"):
        config.decoder_attention_heads = shape.heads
    if hasattr(config, "attention_window"):
        config.attention_window = [shape.attention_window] * shape.layers
    if config.pad_token_id is None:
        config.pad_token_id = 0
    if config.is_encoder_decoder and config.decoder_start_token_id is None:
        config.decoder_start_token_id = config.pad_token_id
    return config
