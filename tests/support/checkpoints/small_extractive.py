"""A tiny checkpoint that ranks sentences, always equal: with an encoder of its own or a reference to one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from small_checkpoints import make_checkpoint, sentences

from deployments.replica.summarize.ranking import FEATURES, Floats, Ranker

DIMENSIONS = 32  # of the tiny encoders
MAX_TOKENS = 24


def ranker(dimensions: int = DIMENSIONS, seed: int = 3) -> Ranker:
    """Return a ranker of random directions, in which a sentence's vector counts more than its place."""
    chance = np.random.default_rng(seed)

    def table(columns: int, scale: float) -> Floats:
        drawn: Floats = chance.normal(scale=scale, size=(1, columns)).astype(np.float32)
        return drawn

    weights, own, before, after = table(len(FEATURES), 0.02), *(table(dimensions, 1.0) for _ in range(3))
    return Ranker(weights, own, before, after, spread=0.0, redundancy=1.0)


def make_extractive_checkpoint(folder: Path, family: str = "distilbert", encoder: str | None = None) -> Path:
    """Write a checkpoint that cuts its encoder after the first layer, with documents of ten sentences and summaries.

    Without a reference to another checkpoint it has an encoder of the family.
    """
    if encoder is None:
        make_checkpoint(folder, family)
    folder.mkdir(exist_ok=True)
    reference = {} if encoder is None else {"encoder": encoder}
    recipe = {"schema": 1, "pooling": "mean", "layer": 1, "max_tokens": MAX_TOKENS, "ranker": "ranker.json"}
    (folder / "extractive.json").write_text(json.dumps(recipe | {"sentences": 3} | reference))
    ranker().save(folder / "ranker.json")
    (folder / "verification.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in documents(12)))
    return folder


def documents(count: int) -> list[dict[str, str]]:
    """Return texts of ten sentences each, with the longest as their summary."""
    every = [one.text.capitalize() + "." for one in sentences(10 * count, seed=23)]
    texts = [every[at : at + 10] for at in range(0, len(every), 10)]
    return [{"text": " ".join(text), "summary": max(text, key=len)} for text in texts]
