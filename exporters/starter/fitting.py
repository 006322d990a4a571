"""A fit under way: steps by batch, the best scores on dev, and a state from which an interrupted one resumes.

Knows neither the model nor the loss, which each recipe has for itself. What is trained is what requires gradients.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from exporters.starter.adapter.low_rank import load_trained, trained_tensors
from exporters.starter.training import take_step

Item = TypeVar("Item")


class Run:
    """The state of a fit: steps done, seconds that they took, scores on dev by step, and the best tensors by them."""

    def __init__(
        self,
        model: nn.Module,
        groups: Iterable[dict[str, Any]],
        rate: Callable[[int], float],
        steps: int,
        seed: int,
        recipe: str = "",
    ) -> None:
        """Prepares a fit of so many steps.

        `groups` are those of the optimiser, `rate` is the share of their learning rates at a step, and `recipe` names
        what a saved state must be of.
        """
        torch.manual_seed(seed)
        self._model, self._recipe, self.steps = model, recipe, steps
        self._optimizer = torch.optim.AdamW(groups)
        self._scheduler = torch.optim.lr_scheduler.LambdaLR(self._optimizer, rate)
        self.done, self.wall_s = 0, 0.0
        self.scores: dict[int, float] = {}
        self.best: dict[str, torch.Tensor] = {}

    def through(self, batches: Iterable[Item], loss: Callable[[Item], torch.Tensor]) -> Iterator[float]:
        """Takes a step for each batch that has had none, up to the last step; yields its loss after each."""
        for batch in islice(batches, self.done, self.steps):
            started = time.monotonic()
            value = take_step(loss(batch), self._model, self._optimizer)
            self._scheduler.step()
            self.done += 1
            self.wall_s += time.monotonic() - started
            yield value

    def every(self, steps: int) -> bool:
        """True after each so many steps, and after the last."""
        return self.done == self.steps or self.done % steps == 0

    def score(self, share: float) -> None:
        """Notes a score on dev, and keeps the tensors if it is the best yet (the first, on a tie)."""
        if share > max(self.scores.values(), default=-1.0):
            self.best = trained_tensors(self._model)
        self.scores[self.done] = share

    @property
    def kept(self) -> int:
        """The step of the best score."""
        return max(self.scores, key=self.scores.__getitem__)

    def save(self, state: Path) -> None:
        """Writes everything from which the fit resumes, atomically."""
        content = {
            "of": self._recipe,
            "tensors": trained_tensors(self._model),
            "best": self.best,
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "chance": torch.get_rng_state(),
            "done": self.done,
            "wall_s": self.wall_s,
            "scores": self.scores,
        }
        beside = state.with_suffix(".partial")
        torch.save(content, beside)
        os.replace(beside, state)

    def resume(self, state: Path) -> None:
        """Continues from a saved state of the same recipe, if there is one."""
        if not state.exists():
            return
        content: dict[str, Any] = torch.load(state, weights_only=True)
        if content.get("of") != self._recipe:
            return
        load_trained(self._model, content["tensors"])
        self._optimizer.load_state_dict(content["optimizer"])
        self._scheduler.load_state_dict(content["scheduler"])
        torch.set_rng_state(content["chance"])
        self.best, self.scores = content["best"], content["scores"]
        self.done, self.wall_s = content["done"], content["wall_s"]


@dataclass(frozen=True)
class Epochs:
    """How often all rows are learnt from, in batches of which size; `max_steps` limits a smoke run."""

    rows: int
    epochs: int
    batch_size: int
    max_steps: int | None = None

    @property
    def steps_each(self) -> int:
        """The number of steps of one epoch."""
        return -(-self.rows // self.batch_size)

    @property
    def steps(self) -> int:
        """The number of steps of the fit."""
        steps = self.epochs * self.steps_each
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def share(self, step: int, warmup_ratio: float) -> float:
        """The share of the learning rate at a step: linear warm-up, then linear decay to nothing."""
        warmup = max(1, int(self.steps * warmup_ratio))
        return min((step + 1) / warmup, max(0.0, (self.steps - step) / max(1, self.steps - warmup)))
