"""Exports what optimum has no graph or configuration for: XLNet's classifiers and taggers, and CTRL.

Knows how each architecture is told what a replica sends; knows no proof, which every kind makes itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from optimum.exporters.onnx import OnnxConfig
from optimum.exporters.onnx.config import TextDecoderWithPositionIdsOnnxConfig
from optimum.utils import NormalizedTextConfig
from transformers import PretrainedConfig, PreTrainedModel

from deployments.engines.base import ONNX_FILE
from deployments.engines.onnx import ATTENTION_MASK, INPUT_IDS, LOGITS, TOKEN_TYPES
from exporters.errors import ExportFailed

OPSET = 17

END_TYPE = 2
"""The token type of the `<cls>` that ends an XLNet's text, as its tokenizer gives it (`cls_token_type_id`)."""

Axes = Mapping[str, Mapping[int, str]]


class _EndsMarked(torch.nn.Module):
    """An XLNet that gives the last token of each text, padded on the right, the type that its tokenizer gives it.

    XLNet's own tokenizer pads on the left. Its positions are relative and padding is masked, so a text's tokens have
    equal states on either side of padding.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model: Any = model

    def marked(self, mask: torch.Tensor, types: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The place (batch, 1) of each text's last token, and the types with that of the end."""
        ends = mask.sum(dim=1, keepdim=True) - 1
        return ends, types.scatter(1, ends, END_TYPE)


class _EndClassifier(_EndsMarked):
    """Classifies by the state of each text's last token; transformers takes that of the last place, padding or not."""

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """Logits (batch, labels)."""
        ends, marked = self.marked(mask, types)
        states = self.model.transformer(ids, attention_mask=mask, token_type_ids=marked, use_mems=False)[0]
        last = states.gather(1, ends.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
        logits: torch.Tensor = self.model.logits_proj(self.model.sequence_summary(last))
        return logits


class _EndTagger(_EndsMarked):
    """Labels every token."""

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """Logits (batch, tokens, labels)."""
        _, marked = self.marked(mask, types)
        logits: torch.Tensor = self.model(ids, attention_mask=mask, token_type_ids=marked, use_mems=False).logits
        return logits


def export_xlnet_classifier(model: PreTrainedModel, folder: Path) -> None:
    """Writes an XLNet classifier's model.onnx, for texts padded on the right. Raises ExportFailed."""
    if model.config.summary_type != "last":
        raise ExportFailed(f"an xlnet that classifies by summary_type={model.config.summary_type!r} is not served")
    _export_encoder(_EndClassifier(model), folder, {0: "batch"})


def export_xlnet_tagger(model: PreTrainedModel, folder: Path) -> None:
    """Writes the model.onnx of an XLNet that labels tokens, for texts padded on the right. Raises ExportFailed."""
    _export_encoder(_EndTagger(model), folder, {0: "batch", 1: "tokens"})


def _export_encoder(module: torch.nn.Module, folder: Path, made: Mapping[int, str]) -> None:
    sample, axes = torch.ones(2, 8, dtype=torch.int64), {0: "batch", 1: "tokens"}
    names = (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPES)
    dynamic = {**dict.fromkeys(names, axes), LOGITS: made}
    _export(module, (sample, sample, torch.zeros_like(sample)), folder, names, (LOGITS,), dynamic)


def _export(
    module: torch.nn.Module,
    samples: tuple[torch.Tensor, ...],
    folder: Path,
    names: Sequence[str],
    outputs: Sequence[str],
    axes: Axes,
) -> None:
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing: what it leaves in a graph, the proof finds
            torch.onnx.export(
                module.eval(),
                samples,
                str(folder / ONNX_FILE),
                input_names=list(names),
                output_names=list(outputs),
                dynamic_axes={name: dict(one) for name, one in axes.items()},
                opset_version=OPSET,
                dynamo=False,
            )
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        said = str(error).partition("\n")[0]
        raise ExportFailed(f"{type(module).__name__} cannot be exported to ONNX: {said}") from error


OWN: dict[tuple[str, str], Callable[[PreTrainedModel, Path], None]] = {
    ("xlnet", "text-classification"): export_xlnet_classifier,
    ("xlnet", "token-classification"): export_xlnet_tagger,
}
"""What exports a checkpoint, by its architecture and its task in optimum's words."""


class _CtrlConfig(TextDecoderWithPositionIdsOnnxConfig):  # type: ignore[misc]  # optimum has no types
    """What optimum needs to know of CTRL: a decoder as GPT-2 is, which is told the positions of its tokens."""

    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig.with_args(
        num_layers="n_layer", num_attention_heads="n_head", hidden_size="n_embd"
    )


def _ctrl_config(config: PretrainedConfig) -> OnnxConfig:
    return _CtrlConfig(config, task="text-generation", use_past=True, use_past_in_inputs=True)


CONFIGURED: dict[tuple[str, str], Callable[[PretrainedConfig], OnnxConfig]] = {
    ("ctrl", "text-generation-with-past"): _ctrl_config
}
"""What tells optimum of an architecture that it does not know, by the same key."""
