"""Low-rank adapters (Hu et al., 2021): a frozen linear layer plus the product of two thin matrices that are trained.

Names tensors as PEFT does, so that PEFT loads what is written here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

PREFIX = "base_model.model."
DOWN, UP = "lora_A.weight", "lora_B.weight"
FED = ("intermediate.dense", "output.dense")
ADAPTED = {
    "bert": ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense", *FED),
    "mpnet": ("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o", *FED),
}
"""The linear layers of each layer that get an adapter, attention and feed-forward, by the base's type."""


class LowRank(nn.Module):
    """`linear(x) + scale * up(down(x))`: equal to `linear` at first, since `up` starts at zero."""

    def __init__(self, linear: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.linear, self.scale = linear, scale
        self.down = nn.Parameter(torch.randn(rank, linear.in_features) / math.sqrt(linear.in_features))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output with the adapter's part added."""
        added = functional.linear(functional.linear(x, self.down), self.up)
        frozen: torch.Tensor = self.linear(x)
        return frozen + added * self.scale


def adapted_names(base: str, layers: Iterable[int]) -> list[str]:
    """The names of the linear layers that get an adapter, in these layers of a base of this type."""
    return [f"{base}.encoder.layer.{layer}.{name}" for layer in layers for name in ADAPTED[base]]


def adapt(model: PreTrainedModel, names: Iterable[str], rank: int, alpha: float) -> None:
    """Freezes the encoder and puts an adapter round each named linear layer; the head stays trainable.

    Raises `ValueError` if a name is not that of a linear layer.
    """
    for parameter in model.base_model.parameters():
        parameter.requires_grad_(False)
    for name in names:
        linear = model.get_submodule(name)
        if not isinstance(linear, nn.Linear):
            raise ValueError(f"{name} is not a linear layer")
        where, _, last = name.rpartition(".")
        setattr(model.get_submodule(where), last, LowRank(linear, rank, alpha / rank))


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by PEFT's names."""
    adapters = {name: module for name, module in model.named_modules() if isinstance(module, LowRank)}
    found = {}
    for name, parameter in model.named_parameters():
        where, _, last = name.rpartition(".")
        if where in adapters and last in ("down", "up"):
            found[f"{PREFIX}{where}.{DOWN if last == 'down' else UP}"] = parameter
        elif parameter.requires_grad:
            found[f"{PREFIX}{name}"] = parameter
    return found


def trained_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the trained tensors by PEFT's names, in fp32: two for each adapter, and the head's."""
    return {name: tensor.detach().float().clone() for name, tensor in trained_parameters(model).items()}


@torch.no_grad()
def load_trained(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copies trained tensors into an adapted model. Raises `KeyError` if one is missing."""
    for name, parameter in trained_parameters(model).items():
        parameter.copy_(tensors[name])
